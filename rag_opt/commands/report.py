"""`python -m rag_opt.report`: a study's report anew, or several compared (rag_opt/cli/report.py)."""

if __name__ == "__main__":
    from rag_opt.cli.report import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
