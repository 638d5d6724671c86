"""Words of newcomers and the field's words for the same thing: query expansion (Voorhees 1994) by hand.

Each line is ``what people type, … : the terms that the documentation uses, …``; a phrase counts as a whole.
"""

from __future__ import annotations

from functools import lru_cache

from underhood.curriculum.search.analysis import question_words

EXPANSION_WEIGHT = 0.7
"""What a match of the field's word counts, compared with the typed word itself."""

_WORDS = """
random, randomness, creative, creativity, deterministic, varied, boring, same answer : temperature, sampling
repeats, repeating, repetitive, again and again : repetition penalty, repetition
temperature, top-k, top-p, min-p, nucleus : sampling
greedy, most likely word : temperature, decode
fast, faster, slow, speed, quick, latency, throughput, tokens per second : speed, engine, speculative, optimized, fast
nan, inf, infinity, diverges, explodes, spikes, unstable : finite, clip, learning rate
notes, pdf, my documents, my files, my docs, knowledge base, rag, wiki : documents, retrieve, index
my text, my data, own data, custom data, own text, dataset, corpus, my files : data, build, text
makes up, making up, invents : hallucination, unlikelihood, retrieval, refusal, documents
make things up, making things up, lying : hallucination, unlikelihood, retrieval, refusal, documents
wrong facts, hallucinates, hallucination, fabricates : hallucination, unlikelihood, retrieval, refusal, documents
ram, vram, oom, out of memory, too big, gigabytes : memory
gpu, cuda, mps, graphics card, nvidia : device, cuda
several gpus, multiple gpus, multi gpu, two gpus, machines, cluster, nodes : processes, distributed, torchrun
json, schema, structured output, regex, format : constrained, grammar, schema
llama, mistral, qwen, gemma, phi, smollm : published, import, checkpoint, hub
gpt2, deepseek, huggingface, hugging face, pretrained, weights : published, import, checkpoint, hub
ollama, lm studio, vllm, transformers library : export, gguf
load, open, download : import, load
resume, continue, interrupted, interrupt, crash, crashed, ctrl, stopped, kill : resume, checkpoint, interrupted
overfit, overfitting, memorize, memorizing, generalize, generalization : held-out, dropout, regularization, validation
backprop, chain rule : backpropagation
sgd : stochastic, gradient, descent
optimizer : adam, optimiser
rlhf, human feedback, reward, thumbs, preferences : preference, feedback, dpo
context window, long text, long documents, longer context, sequence length : context length
moe : mixture experts
nucleus : top-p, sampling
score, benchmark, test, accuracy, quality, good, metrics, validate : evaluate, eval, measure
api, endpoint, http, rest, curl, deploy, host : serve, api
website, browser, web ui, interface : page, serve
visualize, visualise, visualization, see, look inside : token view, tokens, report, page, inside
inspect, thinks, thinking, interpret, explain prediction : token view, tokens, report, page, inside
smaller, shrink, 4bit, 8bit, int4, int8, bits : quantization, weight-only, int8
zip, gzip, archive : compress
vocabulary, subword, word pieces : tokenizer, vocabulary
token, tokens : token, tokenizer
lr, step size : learning rate
tool, tools, function calling, agent : tool, tools
chat, talk, conversation, assistant : chat, conversation
answer, reply, response : answer
terminal, command line, shell : command
add, extend, custom, own layer, new layer, contribute, plugin : add, where to add
layer, module : block, mixer, module
vector, vectors, embed : embedding
first, invented, history, oldest, begin : first, history
finetune, fine tune, adapt, customize, train further : finetune, fine-tune, lora
pretrain, train from scratch : pretrain, build
train, training, make a model, create a model : build, pretrain
dpo : direct preference
peft, adapter, adapters : lora, adapter
vae, diffusion, image, images, picture, pictures, vision : picture, image
translate, translation : encoder, translation
summarize, summary : generate, chat
classify, classification, spam, sentiment, label : classify
derivative, derivatives, gradient, gradients : gradient, differentiation
activation : relu, activation
norm, batchnorm, layernorm : norm, normalization
probability, probabilities, likelihood : probability
information, surprise : entropy
distributed : distributed, processes
math, maths : mathematics, linear algebra
cost, price, how long, minutes, time : minutes, time
disk, space, storage : disk
install, setup, start, begin, getting started, first steps, quickstart : install, run, walk
python, library, import in code, script, notebook : python, load
safe, security, private, privacy, token auth : safe, reach, key
delete, remove : remove
stop, stops, end : stop
"""


@lru_cache(maxsize=1)
def expansions() -> dict[str, tuple[str, ...]]:
    """The field's terms for each phrase of newcomers, both as stems; a phrase is stems joined by spaces."""
    table: dict[str, dict[str, None]] = {}
    for line in _WORDS.strip().splitlines():
        phrases, _, terms = line.partition(" : ")
        chosen = dict.fromkeys(stem for term in terms.split(",") for stem in question_words(term))
        for phrase in phrases.split(","):
            key = " ".join(question_words(phrase))
            if key:
                table.setdefault(key, {}).update(chosen)
    return {phrase: tuple(term for term in terms if term != phrase) for phrase, terms in table.items()}
