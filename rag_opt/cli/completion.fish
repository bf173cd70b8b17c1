function __rag_opt_offers
    set -l words (commandline -cpo)
    set -g __rag_opt_offered ($words[1] completion --offer (commandline -cp | string collect) 2>/dev/null)
    test (count $__rag_opt_offered) -gt 0
end
complete -c rag-opt -n __rag_opt_offers -f -a '$__rag_opt_offered'
