#!/usr/bin/env bash
# Compares the reports in a results folder, which `cortado run coffee --out` has written, with
# reference files, which usually have these columns:
#
#   transaction_id,final_amount                        q1
#   year_month_created_at,item_name,sellings_qty       q2_quantity
#   year_month_created_at,item_name,profit_sum         q2_revenue
#   year_half_created_at,store_name,tpv                q3
#   store_name,birthdate,purchases_qty                 q4
#
#   scripts/validate.sh RESULTS REFERENCE
#
# The script recognises files by these columns, with any file name and in any order of columns; it
# ignores other files. It compares how often each row occurs, in any order. Numbers are compared as
# exact decimals: 1.50 equals 1.5.
#
# The reference of q4 lists, for each store, all customers with at least as many purchases as the
# third. The plan keeps three; of customers with the same number it keeps those with the lowest
# user_id. If a result has three rows for a store, another row of the reference counts as no
# difference if its number equals that of the last of the three. The reference has no user_id, so it
# can't be checked which of these customers were kept.
#
# Exit code 0: equal; 1: different; 2: a file or column is missing or can't be read. Needs bash, awk
# and coreutils. Sorts on disk in TMPDIR, so memory does not grow with the files.
set -euo pipefail
export LC_ALL=C

reports=(q1 q2_quantity q2_revenue q3 q4)
# The last column of each report is a number.
declare -A columns=(
    [q1]='transaction_id,final_amount'
    [q2_quantity]='year_month_created_at,item_name,sellings_qty'
    [q2_revenue]='year_month_created_at,item_name,profit_sum'
    [q3]='year_half_created_at,store_name,tpv'
    [q4]='store_name,birthdate,purchases_qty'
)
kept_per_store=3
examples=5
sort_memory=64M

case ${1:-} in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
esac
if [[ $# -ne 2 ]]; then
    echo 'usage: scripts/validate.sh RESULTS REFERENCE   (two folders; see --help)' >&2
    exit 2
fi
failed=0
fail() { echo "validate: $*" >&2; failed=1; }
for folder in "$@"; do
    [[ -d $folder ]] || fail "$folder is no folder"
done
[[ $failed -eq 0 ]] || exit 2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- reading ------------------------------------------------------------------------------------

# shellcheck disable=SC2016 # awk's own dollars
csv='
function stop(what) {
    printf "validate: %s, line %d: %s\n", name, began, what >"/dev/stderr"
    failed = 1
    exit 2
}

# Splits a record into field[1], …, and returns their number. A quoted field may have line breaks,
# which become \036, so that a row stays one line.
function fields(line,    n, i, text, more) {
    began = NR
    if (NR == 1) sub(/^\357\273\277/, "", line)
    sub(/\r$/, "", line)
    if (!index(line, "\"")) return split(line, field, ",")
    for (;;) {
        text = ""
        if (substr(line, 1, 1) == "\"") {
            line = substr(line, 2)
            for (;;) {
                while (!(i = index(line, "\""))) {
                    if ((getline more) <= 0) stop("a quote is never closed")
                    sub(/\r$/, "", more)
                    text = text line "\036"
                    line = more
                }
                text = text substr(line, 1, i - 1)
                line = substr(line, i + 1)
                if (substr(line, 1, 1) != "\"") break
                text = text "\""
                line = substr(line, 2)
            }
        }
        i = index(line, ",")
        if (!i) {
            field[++n] = text line
            return n
        }
        field[++n] = text substr(line, 1, i - 1)
        line = substr(line, i + 1)
    }
}

# Returns the canonical form of a decimal number.
function decimal(text,    sign, whole, part) {
    if (text !~ /^[-+]?[0-9]+\.?[0-9]*$/ && text !~ /^[-+]?\.[0-9]+$/) {
        stop("\047" text "\047 is not a decimal number")
    }
    if (text ~ /^-/) sign = "-"
    sub(/^[-+]?0*/, "", text)
    whole = text
    if (index(text, ".")) {
        whole = substr(text, 1, index(text, ".") - 1)
        part = substr(text, index(text, "."))
        sub(/\.?0*$/, "", part)
    }
    if (whole == "") whole = 0
    text = whole part
    return text == "0" ? text : sign text
}
'

# header FILE: prints its columns, one per line. Only the beginning of the file is read, because it
# may be no CSV file.
header() {
    awk -v name="$1" "$csv"'
        { n = fields($0); for (i = 1; i <= n; i++) print field[i]; exit failed ? 2 : 0 }
    ' < <(head -c 65536 -- "$1") 2>/dev/null
}

# rows FILE REPORT: prints its rows, sorted, with the columns of the report and canonical numbers.
# Each column begins with \037, which occurs in no text, so that no row begins with a tab like the
# output of comm(1).
rows() {
    # shellcheck disable=SC2016
    awk -v name="$1" -v wanted="${columns[$2]}" "$csv"'
        NR == 1 {
            width = fields($0)
            for (i = 1; i <= width; i++) if (!(field[i] in at)) at[field[i]] = i
            last = split(wanted, column, ",")
            for (i = 1; i <= last; i++) place[i] = at[column[i]]
            next
        }
        $0 == "" || $0 == "\r" { next }
        {
            n = fields($0)
            if (n != width) stop(n " columns, expected " width)
            row = ""
            for (i = 1; i < last; i++) row = row "\037" field[place[i]]
            print row "\037" decimal(field[place[last]])
        }
        END { if (failed) exit 2 }
    ' <"$1" | sort --buffer-size="$sort_memory" --temporary-directory="$work"
}

# ---- recognising files --------------------------------------------------------------------------

# missing_columns REPORT: prints its columns that are not in `present`, separated by commas.
missing_columns() {
    local column list=()
    for column in ${columns[$1]//,/ }; do
        [[ $'\n'$present$'\n' == *$'\n'$column$'\n'* ]] || list+=("$column")
    done
    (IFS=,; echo "${list[*]}")
}

# recognise FOLDER SIDE: sets file[SIDE REPORT] for each report.
declare -A file
recognise() {
    local path report missing hint others=()
    for path in "$1"/*; do
        [[ -f $path ]] || continue
        [[ -r $path ]] || { fail "$path can't be read"; continue; }
        present=$(header "$path") || continue
        local known=''
        for report in "${reports[@]}"; do
            [[ -z $(missing_columns "$report") ]] || continue
            known=yes
            if [[ -n ${file[$2 $report]:-} ]]; then
                fail "both ${file[$2 $report]} and $path have the columns of $report, ${columns[$report]}: keep one"
            fi
            file[$2 $report]=$path
        done
        [[ -n $known ]] || others+=("$path")
    done
    for report in "${reports[@]}"; do
        [[ -z ${file[$2 $report]:-} ]] || continue
        # A file with all but one of the columns is probably the intended one.
        hint=''
        for path in "${others[@]}"; do
            present=$(header "$path")
            missing=$(missing_columns "$report")
            if [[ $missing != *,* ]]; then
                hint="; $path lacks $missing"
                break
            fi
        done
        fail "no file in $1 has the columns of $report, ${columns[$report]}$hint"
    done
}
recognise "$1" results
recognise "$2" reference
[[ $failed -eq 0 ]] || exit 2

# ---- comparing ----------------------------------------------------------------------------------

# compare REPORT: prints its line and the first differences; returns 1 if there are any.
compare() {
    local ranked=''
    [[ $1 != q4 ]] || ranked=$work/results
    # shellcheck disable=SC2016
    comm "$work/results" "$work/reference" | awk -v report="$1" -v examples="$examples" -v kept="$kept_per_store" '
        function shown(row,    n, i, text, part, column) {
            n = split(row, column, "\037")
            for (i = 2; i <= n; i++) {
                part = column[i]
                if (part ~ /[",\036]/) {
                    gsub(/"/, "\"\"", part)
                    gsub(/\036/, "\\n", part)
                    part = "\"" part "\""
                }
                text = text (i > 2 ? "," : "") part
            }
            return text
        }
        function note(what, number, row) {
            if (number <= examples) list[what] = list[what] sprintf("    %-11s %s\n", what, shown(row))
        }
        function rest(what, number) {
            printf "%s", list[what]
            if (number > examples) printf "    %-11s … %d more\n", what, number - examples
        }

        # Rows of the result: counts them for each store, and keeps the lowest number.
        ranking {
            split($0, column, "\037")
            if (!count[column[2]]++ || column[4] + 0 < least[column[2]] + 0) least[column[2]] = column[4]
            next
        }
        substr($0, 1, 2) == "\t\t" { equal++; next }
        /^\t/ {
            row = substr($0, 2)
            split(row, column, "\037")
            if (column[2] in count && count[column[2]] == kept && column[4] == least[column[2]]) level++
            else note("missing", ++missing, row)
            next
        }
        { note("unexpected", ++unexpected, $0) }
        END {
            printf "%-12s %d equal, %d missing, %d unexpected", report, equal, missing, unexpected
            if (level) printf "; %d more of the reference are level with the third, of whom the plan keeps the lowest user_id", level
            print ""
            rest("missing", missing)
            rest("unexpected", unexpected)
            exit missing + unexpected > 0
        }' ${ranked:+ranking=1 "$ranked"} ranking=0 -
}

different=()
for report in "${reports[@]}"; do
    for side in results reference; do
        rows "${file[$side $report]}" "$report" >"$work/$side" || exit 2
    done
    compare "$report" || different+=("$report")
done
if [[ ${#different[@]} -gt 0 ]]; then
    echo "DIFFERENT: ${different[*]}"
    exit 1
fi
echo 'equal: all reports'
