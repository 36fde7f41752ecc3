"""OpenAI's REST dialect under `/openai/v1`: requests become calls of the platform's contracts, answers and errors take
OpenAI's form. Nothing is decided here that the services decide."""

from gateway_rest.openai.routes import routes

__all__ = ["routes"]
