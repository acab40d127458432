//! Circles of imports: strongly connected components (Tarjan, 1972) of more than one file.

use std::collections::BTreeSet;

/// Finds the circles among files; each lists its files in order.
pub(crate) fn circles(imports: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let unseen = vec![None; imports.len()];
    let mut search =
        Search { imports, index: unseen, low: vec![0; imports.len()], ..Search::default() };
    for file in 0..imports.len() {
        if search.index[file].is_none() {
            search.visit(file);
        }
    }
    search.found
}

#[derive(Default)]
struct Search<'a> {
    imports: &'a [BTreeSet<usize>],
    index: Vec<Option<usize>>,
    low: Vec<usize>,
    stack: Vec<usize>,
    seen: usize,
    found: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, file: usize) {
        let index = self.seen;
        self.index[file] = Some(index);
        self.low[file] = index;
        self.seen += 1;
        self.stack.push(file);
        for &next in &self.imports[file] {
            match self.index[next] {
                None => {
                    self.visit(next);
                    self.low[file] = self.low[file].min(self.low[next]);
                }
                Some(index) if self.stack.contains(&next) => {
                    self.low[file] = self.low[file].min(index);
                }
                Some(_) => {}
            }
        }
        if self.low[file] == index {
            let start = self.stack.iter().position(|on| *on == file).unwrap_or_default();
            let mut circle = self.stack.split_off(start);
            if circle.len() > 1 {
                circle.sort_unstable();
                self.found.push(circle);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_lead_back_to_themselves_are_a_circle() {
        let imports = [vec![1], vec![2, 3], vec![0], vec![4], vec![]];
        let imports: Vec<BTreeSet<_>> =
            imports.into_iter().map(|of| of.into_iter().collect()).collect();
        assert_eq!(circles(&imports), [[0, 1, 2]]);
    }
}
