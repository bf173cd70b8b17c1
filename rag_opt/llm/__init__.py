"""The way to language models that all components share: kept replies, the budget, who listens.

Which server or library answers is the business of `components.llm`.
"""
