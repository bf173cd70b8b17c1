"""`python -m rag_opt.update`: a registered model over changed documents (rag_opt/cli/update.py)."""

if __name__ == "__main__":
    from rag_opt.cli.update import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
