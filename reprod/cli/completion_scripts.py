"""What each shell has to be told so that it asks ``reprod completion`` for words: one function and its registration.

Rule: nothing in them names a command or a flag of reprod's, so that they need not be made anew with a new version.
"""

BASH = r"""# bash completion of reprod. For good, either of:
#   reprod completion bash > ~/.local/share/bash-completion/completions/reprod     (needs the package bash-completion)
#   echo 'eval "$(reprod completion bash)"' >> ~/.bashrc
_reprod() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) compopt -o default 2>/dev/null ;;
            ?*) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("${1/#\~/$HOME}" completion bash -- "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *: ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}
complete -F _reprod reprod
"""

ZSH = r"""#compdef reprod
# zsh completion of reprod. For good, either of:
#   reprod completion zsh > ~/.zfunc/_reprod      (and in ~/.zshrc, before compinit:  fpath=(~/.zfunc $fpath))
#   echo 'source <(reprod completion zsh)' >> ~/.zshrc      (after compinit)
_reprod() {
    local line word files=0
    local -a found shown open
    while IFS= read -r line; do
        if [[ $line == ':files' ]]; then
            files=1
            continue
        fi
        word=${line%%$'\t'*}
        if [[ $word == *: ]]; then
            open+=("$word")
        elif [[ -n $word ]]; then
            found+=("$word")
            shown+=("${line/$'\t'/  -- }")
        fi
    done < <("${~words[1]}" completion zsh -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)
    (( $#found )) && compadd -l -d shown -a found
    (( $#open )) && compadd -S '' -a open
    (( files )) && _files
    return 0
}
if [[ ${funcstack[1]} == _reprod ]]; then
    _reprod "$@"
elif (( $+functions[compdef] )); then
    compdef _reprod reprod
fi
"""

FISH = r"""# fish completion of reprod. For good:
#   reprod completion fish > ~/.config/fish/completions/reprod.fish
function __reprod_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l reprod $before[1]
    set -e before[1]
    for line in ($reprod completion fish -- $before "$current" 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path "$current"
        else
            echo -- $line
        end
    end
end
complete -c reprod -f -a '(__reprod_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
