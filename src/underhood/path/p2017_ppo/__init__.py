"""PPO for language models, on a policy whose optimum, gradient and every expectation are known exactly."""
