"""`python -m rag_opt.promote`: what a study recommends as a registered model (rag_opt/cli/promote.py)."""

if __name__ == "__main__":
    from rag_opt.cli.promote import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
