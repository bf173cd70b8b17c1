#compdef rag-opt
_rag_opt() {
    local -a offered open closed
    offered=(${(f)"$($words[1] completion --offer "${words[1,CURRENT-1]} $PREFIX" 2>/dev/null)"})
    if (( ! $#offered )); then
        compset -P '*='
        _files
        return
    fi
    open=(${(M)offered:#*[=.]})
    closed=(${offered:#*[=.]})
    compadd -S '' -a open
    compadd -a closed
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _rag_opt "$@"
else
    compdef _rag_opt rag-opt
fi
