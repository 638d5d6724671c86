"""The panel of differences: two models or two prompts, layer by layer and token by token."""

from __future__ import annotations

from underhood.core.errors import UserError
from underhood.inspect.comparison import compare
from underhood.inspect.stage_patching import ModelRun
from underhood.web.inside.packing import Payload, exact
from underhood.web.inside.subjects import Subject


def difference(subject: Subject, *, beside: str, against: str = "") -> Payload:
    """How far this subject is from another: cosine of the residual streams, divergence of the lenses in bits.

    Args:
        beside: id of the other model.
        against: its prompt; this one if left out.

    Raises:
        UserError: the models differ in shape, or the prompts in length.
    """
    if subject.others is None:
        raise UserError("there is nothing to compare with")
    other = subject.others.subject(beside, against or subject.prompt)
    view = compare(ModelRun(other.loaded, other.trace), ModelRun(subject.loaded, subject.trace))
    return Payload(
        {"names": list(view.names)},
        {"cosine": exact(view.cosine), "relative": exact(view.relative), "divergence": exact(view.lens_kl)},
    )
