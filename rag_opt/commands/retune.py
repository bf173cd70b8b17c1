"""`python -m rag_opt.retune`: a served model tuned again on what people have asked since (rag_opt/cli/retune.py)."""

if __name__ == "__main__":
    from rag_opt.cli.retune import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
