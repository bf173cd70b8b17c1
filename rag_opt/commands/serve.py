"""`python -m rag_opt.serve`: a model as a service (rag_opt/cli/serve.py)."""

if __name__ == "__main__":
    from rag_opt.cli.serve import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
