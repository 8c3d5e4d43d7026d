//! The rows of one list: what was told, what is seen of it, in which order.

use std::cmp::Ordering;

use signalbox_schemas::selector::natural_order;

use crate::{
    settings::views::View,
    tui::{
        lists::{Cell, Column, Item, ListKind},
        needle::Needle,
    },
};

use super::cursor::Cursor;

/// One list as it was last told.
#[derive(Debug)]
pub struct Rows {
    kind: ListKind,
    items: Vec<Item>,
    /// Keys of what is seen, in order.
    order: Vec<String>,
    /// Places in `items` of what is seen, in order.
    places: Vec<usize>,
    filter: String,
    needle: Needle,
    /// Place of the column by which they are sorted; `None`: as they were told.
    sort: Option<usize>,
    is_reversed: bool,
    /// Places of the columns that are there, from left to right.
    columns: Vec<usize>,
    /// When they were told, ms; `None` = never.
    pub told_ms: Option<u64>,
    /// When they were asked for, ms, while that is not answered.
    pub asked_ms: Option<u64>,
    /// When they were last asked for, ms, whatever came of it.
    pub tried_ms: Option<u64>,
    /// Why the last asking brought nothing.
    pub problem: Option<String>,
    /// The row the operator is on.
    pub cursor: Cursor<String>,
}

impl Rows {
    /// A list of which nothing was told.
    pub fn new(kind: ListKind) -> Self {
        Self {
            kind,
            items: Vec::new(),
            order: Vec::new(),
            places: Vec::new(),
            filter: String::new(),
            needle: Needle::default(),
            sort: None,
            is_reversed: false,
            columns: shown_at_first(kind),
            told_ms: None,
            asked_ms: None,
            tried_ms: None,
            problem: None,
            cursor: Cursor::default(),
        }
    }

    /// Which list it is.
    pub fn kind(&self) -> ListKind {
        self.kind
    }

    /// Takes the rows as they are now.
    pub fn tell(&mut self, items: Vec<Item>, now_ms: u64, wall_ms: u64) {
        self.items = items;
        self.told_ms = Some(now_ms);
        self.asked_ms = None;
        self.problem = None;
        self.arrange(wall_ms);
    }

    /// Takes that they could not be read.
    pub fn fail(&mut self, why: String) {
        self.asked_ms = None;
        self.problem = Some(why);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Keys of what is seen, in order.
    pub fn order(&self) -> &[String] {
        &self.order
    }

    /// What is seen, in order.
    pub fn seen(&self) -> impl Iterator<Item = &Item> {
        self.places.iter().filter_map(|at| self.items.get(*at))
    }

    /// One row.
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.key == key)
    }

    /// The row the operator is on.
    pub fn here(&self) -> Option<&Item> {
        self.cursor.key().and_then(|key| self.get(key))
    }

    /// Moves the cursor by rows.
    pub fn step(&mut self, rows: isize) {
        self.cursor.step(&self.order, rows);
    }

    /// The filter as it was written; empty = none.
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Shows only rows that have this text in one of their columns.
    pub fn set_filter(&mut self, filter: &str, wall_ms: u64) {
        filter.clone_into(&mut self.filter);
        self.needle = Needle::new(filter);
        // What makes no sense yet hides nothing that was seen before.
        if self.needle.problem().is_none() {
            self.arrange(wall_ms);
        }
    }

    /// Why the filter is not understood, where it is not: what was seen before is seen still.
    pub fn filter_problem(&self) -> Option<&str> {
        self.needle.problem()
    }

    /// The columns that are there, with their places.
    pub fn columns(&self) -> impl Iterator<Item = (usize, &'static Column)> {
        self.columns.iter().filter_map(|at| Some((*at, self.kind.columns().get(*at)?)))
    }

    /// All columns by name, those that are there first, and whether they are.
    pub fn choice(&self) -> Vec<(&'static str, bool)> {
        let all = self.kind.columns();
        let there = self.columns().map(|(_, column)| (column.name, true));
        let others = all.iter().enumerate().filter(|(at, _)| !self.columns.contains(at));
        there.chain(others.map(|(_, column)| (column.name, false))).collect()
    }

    /// Shows these columns, in this order. Names that it does not have are left out; without any nothing changes.
    pub fn choose<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        let all = self.kind.columns();
        let places: Vec<usize> =
            names.into_iter().filter_map(|name| all.iter().position(|column| column.name == name)).collect();
        if !places.is_empty() {
            self.columns = places;
        }
    }

    /// Shows columns and order as an operator has set them; names that there are not change nothing.
    pub fn set_view(&mut self, view: &View) {
        self.choose(view.columns.iter().flatten().map(String::as_str));
        if let Some((name, largest_first)) = view.order() {
            self.sort_named(name, largest_first, 0);
        }
    }

    /// Shows the columns that are there at first.
    pub fn reset_columns(&mut self) {
        self.columns = shown_at_first(self.kind);
    }

    /// By which column they are sorted, by its place, and whether the other way around.
    pub fn sort(&self) -> (Option<usize>, bool) {
        (self.sort, self.is_reversed)
    }

    /// Sorts by the column so many further on; beyond the ends as they were told.
    pub fn sort_next(&mut self, steps: isize, wall_ms: u64) {
        let here = self.sort.and_then(|sort| self.columns.iter().position(|at| *at == sort));
        let slots = isize::try_from(self.columns.len() + 1).unwrap_or(1);
        let at = here.map_or(0, |at| isize::try_from(at + 1).unwrap_or(0));
        let next = (at + steps).rem_euclid(slots);
        self.sort = usize::try_from(next - 1).ok().and_then(|at| self.columns.get(at)).copied();
        self.is_reversed = false;
        self.arrange(wall_ms);
    }

    /// Sorts by a column of this name. `false`: it has none.
    pub fn sort_named(&mut self, name: &str, is_reversed: bool, wall_ms: u64) -> bool {
        let Some(at) = self.kind.columns().iter().position(|column| column.name == name) else {
            return false;
        };
        (self.sort, self.is_reversed) = (Some(at), is_reversed);
        self.arrange(wall_ms);
        true
    }

    /// The other way around.
    pub fn reverse(&mut self, wall_ms: u64) {
        self.is_reversed = !self.is_reversed;
        self.arrange(wall_ms);
    }

    /// Filters and sorts anew.
    fn arrange(&mut self, wall_ms: u64) {
        let needle = &self.needle;
        // Of a filter that makes no sense yet nobody knows what it hides.
        let is_all = needle.is_empty() || needle.problem().is_some();
        let seen = |item: &Item| is_all || needle.is_in(item.cells.iter().map(|cell| cell.plain(wall_ms)));
        let mut places: Vec<usize> =
            self.items.iter().enumerate().filter(|(_, item)| seen(item)).map(|(at, _)| at).collect();
        if let Some(sort) = self.sort {
            let cell = |at: &usize| self.items.get(*at).and_then(|item| item.cells.get(sort));
            places.sort_by(|a, b| match (cell(a), cell(b)) {
                (Some(a), Some(b)) => compare(a, b),
                _ => Ordering::Equal,
            });
        }
        if self.is_reversed {
            places.reverse();
        }
        self.order =
            places.iter().filter_map(|at| self.items.get(*at)).map(|item| item.key.clone()).collect();
        self.places = places;
        self.cursor.find(&self.order);
    }
}

fn shown_at_first(kind: ListKind) -> Vec<usize> {
    kind.columns().iter().enumerate().filter(|(_, column)| column.is_shown).map(|(at, _)| at).collect()
}

/// Numbers by size, moments the newest first, texts as people read them; what is nothing comes last.
fn compare(a: &Cell, b: &Cell) -> Ordering {
    let text = |cell: &Cell| match cell {
        Cell::Text(text) | Cell::Word(_, text) | Cell::Quiet(text) => Some(text.clone()),
        Cell::Nothing | Cell::Number(_) | Cell::Time(_) => None,
    };
    match (a, b) {
        (Cell::Nothing, Cell::Nothing) => Ordering::Equal,
        (Cell::Nothing, _) => Ordering::Greater,
        (_, Cell::Nothing) => Ordering::Less,
        (Cell::Number(a), Cell::Number(b)) => a.cmp(b),
        (Cell::Time(a), Cell::Time(b)) => b.cmp(a),
        _ => natural_order(&text(a).unwrap_or_default(), &text(b).unwrap_or_default()),
    }
}
