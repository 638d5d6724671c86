"""Fine-tuning a model towards what people want."""
