"""`python -m rag_opt.replay`: samplers on recorded studies (rag_opt/cli/replay.py)."""

if __name__ == "__main__":
    from rag_opt.cli.replay import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
