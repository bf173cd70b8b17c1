"""`python -m rag_opt.gate`: whether a change makes answers worse (rag_opt/cli/gate.py)."""

if __name__ == "__main__":
    from rag_opt.cli.gate import main
    from rag_opt.system.environment import exit_process

    main()
    exit_process()
