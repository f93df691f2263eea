//! What is to be reached, and whether it is.

use super::table::Table;

/// Something that is to be reached.
pub(super) struct Goal {
    pub(super) name: String,
    pub(super) found: String,
    /// `None` if what it takes to judge was not measured.
    pub(super) is_met: Option<bool>,
}

/// Not all goals were reached.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("goals missed or not judged: {}", names.join("; "))]
pub(super) struct Missed {
    names: Vec<String>,
}

impl Missed {
    /// **Errors**: if a goal was missed, or could not be judged.
    pub(super) fn check(goals: &[Goal]) -> Result<(), Self> {
        let missed = goals.iter().filter(|goal| goal.is_met != Some(true));
        let names: Vec<String> = missed.map(|goal| goal.name.clone()).collect();
        if names.is_empty() { Ok(()) } else { Err(Self { names }) }
    }
}

/// Writes goals as a table in Markdown.
pub(super) fn to_markdown(goals: &[Goal]) -> String {
    let mut table = Table::new(["goal", "found", "reached"]);
    for goal in goals {
        let is_met = match goal.is_met {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "not judged",
        };
        table.row([goal.name.as_str(), &goal.found, is_met]);
    }
    table.to_markdown()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(name: &str, is_met: Option<bool>) -> Goal {
        Goal { name: name.to_owned(), found: String::from("7"), is_met }
    }

    #[test]
    fn a_goal_that_was_missed_or_not_judged_is_named() {
        let goals = [goal("a", Some(true)), goal("b", Some(false)), goal("c", None)];
        let error = Missed::check(&goals).unwrap_err().to_string();
        assert_eq!(error, "goals missed or not judged: b; c");
        assert_eq!(Missed::check(&goals[..1]), Ok(()));
    }

    #[test]
    fn the_table_says_of_every_goal_whether_it_was_reached() {
        let goals = [goal("a", Some(true)), goal("b", Some(false)), goal("c", None)];
        let text = to_markdown(&goals);
        for expected in ["reached |\n", "MISSED |\n", "not judged |\n"] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
    }
}
