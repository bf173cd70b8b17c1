"""`python -m rag_opt.questions`: what a set of questions is worth (rag_opt/cli/questions.py)."""

if __name__ == "__main__":
    from rag_opt.cli.questions import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
