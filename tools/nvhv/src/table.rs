// SPDX-License-Identifier: GPL-2.0

//! Tables: for people in columns, for scripts with tabs.

/// Prints rows under `head`; without a head and with tabs if `plain`.
pub fn print(head: &[&str], rows: &[Vec<String>], plain: bool) {
    if plain {
        for row in rows {
            println!("{}", row.join("\t"));
        }
        return;
    }
    for line in lines(head, rows) {
        println!("{line}");
    }
}

/// Rows under `head`, in columns.
pub fn lines(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i));
        cells
            .map(|c| c.chars().count())
            .chain([head[i].len()])
            .max()
    };
    let widths: Vec<usize> = (0..head.len()).map(|i| width(i).unwrap_or(0)).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        line.trim_end().to_owned()
    };
    let rows = rows
        .iter()
        .map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(head.to_vec())).chain(rows).collect()
}
