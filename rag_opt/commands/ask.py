"""`python -m rag_opt.ask`: ask one question (rag_opt/cli/ask.py)."""

if __name__ == "__main__":
    from rag_opt.cli.ask import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
