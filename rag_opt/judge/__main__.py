"""`python -m rag_opt.judge`: how far a judge can be trusted (rag_opt/cli/judge.py)."""

if __name__ == "__main__":
    from rag_opt.cli.judge import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
