"""`python -m rag_opt.export`: what a study recommends as plain Haystack pipelines (rag_opt/cli/export.py)."""

if __name__ == "__main__":
    from rag_opt.cli.export import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
