"""The server: OpenAI's API over the engine, and the pages."""
