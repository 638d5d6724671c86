"""DPO: preference training without a reward model and without sampling, compared with the exact optimum of RLHF."""
