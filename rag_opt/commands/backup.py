"""`python -m rag_opt.backup`: a copy of a study's database (rag_opt/cli/backup.py)."""

if __name__ == "__main__":
    from rag_opt.cli.backup import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
