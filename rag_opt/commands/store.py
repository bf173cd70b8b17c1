"""`python -m rag_opt.store`: what is kept for later studies (rag_opt/cli/store.py)."""

if __name__ == "__main__":
    from rag_opt.cli.store import main

    main()
