"""What finished trials and unseen questions allow to say: history, paired statistics, confirmation, findings.

Numbers and sentences; how they look is the business of `reporting`.
"""
