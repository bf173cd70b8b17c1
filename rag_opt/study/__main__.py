"""`python -m rag_opt.study`: run or resume a study (rag_opt/cli/study.py)."""

if __name__ == "__main__":
    from rag_opt.cli.study import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
