"""The decoder engine: many answers made together, a token of each at a step, by a loop over ONNX Runtime that runs in
a process of its own (`services.inference.text.host`). It knows prompts and tokens, nothing of money or the wire."""
