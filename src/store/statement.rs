//! Statements that grow with what is asked: lists, rows, filters and pages, numbered `$1…` as they grow.
//!
//! Not here: statements of fixed text (`sql::sql`) and running either.

use super::{
    Page,
    sql::{Arg, Query, sql},
};

/// Most values in one list, and most rows in one insert: SQLite takes 32 766 arguments, and no insert here has more than
/// sixteen columns.
pub(crate) const LIST_MAX: usize = 1000;

/// A statement being written. Text is ours, values are arguments: nothing from outside becomes text.
pub(crate) struct Statement {
    text: String,
    args: Vec<Arg>,
}

impl Statement {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), args: Vec::new() }
    }

    /// Appends text.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends one value.
    pub(crate) fn arg(mut self, value: impl Into<Arg>) -> Self {
        self.args.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.args.len().to_string());
        self
    }

    /// Appends text and its value when there is one: an optional filter.
    pub(crate) fn given(self, text: &str, value: Option<impl Into<Arg>>) -> Self {
        match value {
            Some(value) => self.text(text).arg(value),
            None => self,
        }
    }

    /// Appends `(…)` with every value. An empty list matches nothing.
    pub(crate) fn list<T: Into<Arg> + Clone>(mut self, values: &[T]) -> Self {
        let Some(last) = values.last() else { return self.text("(null)") };
        // Filled up to a power of two, so that few different texts reach the engine and it need not plan each anew.
        let padding = values.len().next_power_of_two() - values.len();
        let padded = values.iter().chain(std::iter::repeat_n(last, padding));
        for (position, value) in padded.enumerate() {
            self = self.text(if position == 0 { "(" } else { ", " }).arg(value.clone());
        }
        self.text(")")
    }

    /// Appends `($1, $2), ($3, $4)`: the rows of an insert.
    pub(crate) fn rows<const N: usize>(mut self, rows: impl IntoIterator<Item = [Arg; N]>) -> Self {
        for (number, row) in rows.into_iter().enumerate() {
            self = self.text(if number == 0 { "(" } else { ", (" });
            for (position, value) in row.into_iter().enumerate() {
                self = self.text(if position == 0 { "" } else { ", " }).arg(value);
            }
            self = self.text(")");
        }
        self
    }

    /// Ends a list newest first: what lies after `page.after`, ordered by a time and an id, at most `page.limit` rows.
    pub(crate) fn page(mut self, page: &Page, time: &str, id: &str) -> Query {
        if let Some(after) = &page.after {
            self = self
                .text(&format!(" and ({time}, {id}) < ("))
                .arg(after.at)
                .text(", ")
                .arg(after.id)
                .text(")");
        }
        self.text(&format!(" order by {time} desc, {id} desc limit ")).arg(page.limit).query()
    }

    pub(crate) fn query(self) -> Query {
        sql(self.text).bind_all(self.args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(statement: Statement, text: &str, args: &[i64]) {
        let args: Vec<Arg> = args.iter().map(|arg| Arg::from(*arg)).collect();
        assert_eq!((statement.text.as_str(), &statement.args), (text, &args));
    }

    #[test]
    fn values_are_numbered_as_they_come() {
        let statement = Statement::new("a = ").arg(7_i64).text(" and b = ").arg(8_i64);
        check(statement, "a = $1 and b = $2", &[7, 8]);
        check(Statement::new("a").given(" = ", Some(1_i64)).given(" = ", None::<i64>), "a = $1", &[1]);
        check(
            Statement::new("").rows([[1_i64.into(), 2_i64.into()], [3_i64.into(), 4_i64.into()]]),
            "($1, $2), ($3, $4)",
            &[1, 2, 3, 4],
        );
    }

    #[test]
    fn lists_of_many_lengths_make_few_texts() {
        check(Statement::new("").list(&[] as &[i64]), "(null)", &[]);
        check(Statement::new("").list(&[5_i64]), "($1)", &[5]);
        check(Statement::new("").list(&[5_i64, 6, 7]), "($1, $2, $3, $4)", &[5, 6, 7, 7]);
    }
}
