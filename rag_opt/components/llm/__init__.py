"""How a language model is asked: servers, local models, prompts, replies (`chat` of other components)."""
