"""`python -m rag_opt.documents`: what a folder of documents gives (rag_opt/cli/documents.py)."""

if __name__ == "__main__":
    from rag_opt.cli.documents import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
