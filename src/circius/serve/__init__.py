"""An HTTP server that speaks OpenAI's protocol, over one engine. The only place that knows of a web framework."""
