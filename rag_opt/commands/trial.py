"""`python -m rag_opt.trial`: measure one configuration (rag_opt/cli/trial.py)."""

if __name__ == "__main__":
    from rag_opt.console.terminal import print_first_line

    print_first_line(
        "rag_opt.trial: reading the configuration and loading PyTorch and Haystack, which takes some seconds"
    )
    from rag_opt.cli.trial import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
