"""`python -m rag_opt.llm`: a model of this machine as an OpenAI-compatible endpoint (rag_opt/cli/llm.py)."""

if __name__ == "__main__":
    from rag_opt.cli.llm import main

    main()
