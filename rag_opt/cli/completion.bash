_rag_opt() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$'\n'
    local word=${line##*[[:space:]]}
    COMPREPLY=($("$1" completion --offer "$line" 2>/dev/null))
    # Bash replaces only what stands behind the last = or : of the word, and hands that over as $2.
    COMPREPLY=("${COMPREPLY[@]#"${word%"$2"}"}")
    [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *[=.] ]] || compopt -o nospace 2>/dev/null
}
complete -o default -F _rag_opt rag-opt
