"""`python -m rag_opt.watch`: what a served model did, and whether that has changed (rag_opt/cli/watch.py)."""

if __name__ == "__main__":
    from rag_opt.cli.watch import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
