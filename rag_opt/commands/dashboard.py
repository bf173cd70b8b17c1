"""`python -m rag_opt.dashboard`: look at a study in the browser (rag_opt/cli/dashboard.py)."""

if __name__ == "__main__":
    from rag_opt.cli.dashboard import main

    main()
