# shellcheck shell=bash
# What the images' labels say of their source; sourced by whatever builds them.
#
#   REVISION   the commit, with -dirty when the tree differs from it
#   SOURCE     where the code is, as an address to open
# Both keep a value that the environment has.
REVISION=${REVISION:-$(git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null || echo unknown)}
if [ -z "${SOURCE:-}" ]; then
    SOURCE=$(git remote get-url origin 2>/dev/null || echo unknown)
    # git@host:owner/name.git, and never a password that an address holds.
    SOURCE=$(printf '%s' "$SOURCE" | sed -E 's#^(ssh://)?git@([^:/]+)[:/]#https://\2/#; s#//[^/@]*@#//#; s#\.git$##')
    [[ $SOURCE == https://* ]] || SOURCE=unknown
fi
export REVISION SOURCE
