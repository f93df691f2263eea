//! What the processes measured, put together: times of all layouts, verdicts of all checks.

use super::programs::Build;
use crate::bench::figure::Figure;
use memtrace_benches::unwind::{Contender, Figures};

/// memtrace's way from allocation to call site: the contender that has goals.
pub(super) const SITE: &str = "memtrace site";
/// What its time is compared with.
pub(super) const FRAMEHOP: &str = "framehop + intern";

/// All that was measured.
#[derive(Default)]
pub(super) struct Measured {
    /// In the order in which they were first run.
    pub(super) workloads: Vec<Workload>,
    /// Load averages of the last minute, before and after.
    pub(super) load_averages: [Option<f64>; 2],
}

/// One workload in one build, in all its layouts.
pub(super) struct Workload {
    pub(super) build: Build,
    pub(super) name: String,
    layouts: Vec<Figures>,
}

/// Whether a contender's stacks were the true ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Nothing was compared.
    Unknown,
    /// All that it must be.
    Right,
    /// It claims to be right and is not: in this part of the captures, or 0, where only the number of
    /// distinct stacks differs.
    Wrong(f64),
    /// It claims nothing, and is right in this part of the captures, and right but without outer
    /// frames in that.
    Partly(f64, f64),
}

impl Measured {
    /// Adds what a process measured.
    pub(super) fn add(&mut self, build: Build, figures: Figures) {
        let same = |w: &&mut Workload| w.build == build && w.name == figures.workload;
        match self.workloads.iter_mut().find(same) {
            Some(workload) => workload.layouts.push(figures),
            None => self.workloads.push(Workload {
                build,
                name: figures.workload.clone(),
                layouts: vec![figures],
            }),
        }
    }

    /// The workloads of a build.
    pub(super) fn of(&self, build: Build) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(move |workload| workload.build == build)
    }

    /// A workload by its name.
    pub(super) fn find(&self, build: Build, name: &str) -> Option<&Workload> {
        self.of(build).find(|workload| workload.name == name)
    }

    /// Contenders that were missing, each once.
    pub(super) fn absent(&self) -> Vec<&str> {
        let layouts = self.workloads.iter().flat_map(|workload| &workload.layouts);
        let mut names: Vec<&str> =
            layouts.flat_map(|figures| &figures.absent).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Workload {
    /// What the layouts have in common is read from the first of them.
    pub(super) fn first(&self) -> &Figures {
        &self.layouts[0]
    }

    /// The names of the contenders.
    pub(super) fn contenders(&self) -> impl Iterator<Item = &str> {
        self.first().contenders.iter().map(|contender| contender.name.as_str())
    }

    /// The time without captures, in nanoseconds a capture.
    pub(super) fn base_ns(&self) -> Option<Figure> {
        Figure::of(self.layouts.iter().flat_map(|figures| figures.base_ns.iter().copied()))
    }

    /// The time that a contender adds to each capture, in nanoseconds, over all rounds of all
    /// layouts. Differences are taken within a round.
    pub(super) fn added_ns(&self, name: &str) -> Option<Figure> {
        Figure::of(self.by_layout(name).flat_map(|(figures, contender)| added(figures, contender)))
    }

    /// How many times longer a program takes.
    pub(super) fn slowdown(&self, name: &str) -> Option<Figure> {
        Figure::of(self.by_layout(name).flat_map(|(figures, contender)| {
            contender.ns.iter().zip(&figures.base_ns).map(|(ns, base)| ns / base)
        }))
    }

    /// The time that a contender adds in the layout that suits it best: the least of the layouts'
    /// medians.
    pub(super) fn added_ns_at_best(&self, name: &str) -> Option<f64> {
        let medians = self
            .by_layout(name)
            .filter_map(|(figures, contender)| Some(Figure::of(added(figures, contender))?.median));
        medians.min_by(f64::total_cmp)
    }

    /// How many times more framehop adds than memtrace: framehop in its best layout, memtrace in the
    /// median of all; and both in the median. `None` if memtrace's time drowned in that of the program
    /// in any round: a ratio would be noise.
    pub(super) fn ratios(&self) -> Option<[f64; 2]> {
        let (site, framehop) = (self.added_ns(SITE)?, self.added_ns(FRAMEHOP)?);
        let best = self.added_ns_at_best(FRAMEHOP)?;
        (site.min > 0.0).then(|| [best / site.median, framehop.median / site.median])
    }

    /// The part of the rules that a contender found in its cache, on average over the layouts.
    pub(super) fn rule_hits(&self, name: &str) -> Option<f64> {
        let hits: Option<Vec<f64>> = self.by_layout(name).map(|(_, c)| c.rule_hits).collect();
        let hits = hits.filter(|hits| !hits.is_empty())?;
        Some(hits.iter().sum::<f64>() / hits.len() as f64)
    }

    /// Whether a contender's stacks are the true ones, in all layouts.
    pub(super) fn verdict(&self, name: &str) -> Verdict {
        let (mut n_checked, mut n_wrong, mut n_cut) = (0, 0, 0);
        let (mut is_exact, mut is_miscounted) = (true, false);
        for (figures, contender) in self.by_layout(name) {
            n_checked += contender.n_checked;
            n_wrong += contender.n_wrong;
            n_cut += contender.n_cut;
            is_exact &= contender.is_exact;
            let is_as_true = |n_sites| n_sites == figures.n_sites;
            is_miscounted |=
                !is_as_true(contender.n_sites) || !contender.n_sites_timed.is_none_or(is_as_true);
        }
        if n_checked == 0 {
            return Verdict::Unknown;
        }
        let part = |n: u64| n as f64 / n_checked as f64;
        match (is_exact, n_wrong > 0 || is_miscounted) {
            (false, _) => Verdict::Partly(part(n_checked - n_wrong), part(n_cut)),
            (true, true) => Verdict::Wrong(part(n_wrong)),
            (true, false) => Verdict::Right,
        }
    }

    fn by_layout<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a Figures, &'a Contender)> {
        self.layouts.iter().filter_map(move |figures| {
            Some((figures, figures.contenders.iter().find(|contender| contender.name == name)?))
        })
    }
}

fn added(figures: &Figures, contender: &Contender) -> impl Iterator<Item = f64> {
    contender.ns.iter().zip(&figures.base_ns).map(|(ns, base)| ns - base)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Figures of two contenders that add so many nanoseconds in the median of three rounds.
    pub(in crate::bench::unwind) fn figures(name: &str, site: f64, framehop: f64) -> Figures {
        let of = |name: &str, ns: f64| Contender {
            name: name.to_owned(),
            is_exact: true,
            is_interning: true,
            ns: vec![100.0 + ns, 90.0 + ns * 0.9, 110.0 + ns * 1.5],
            n_checked: 1000,
            n_sites: 7,
            n_sites_timed: Some(7),
            ..Contender::default()
        };
        Figures {
            workload: name.to_owned(),
            is_program: !name.contains('/'),
            limit: 25,
            n_captures: 1000,
            mean_depth: 25.0,
            n_sites: 7,
            base_ns: vec![100.0, 90.0, 110.0],
            contenders: vec![of(SITE, site), of(FRAMEHOP, framehop)],
            ..Figures::default()
        }
    }

    fn workload(layouts: Vec<Figures>) -> Workload {
        Workload { build: Build::Default, name: layouts[0].workload.clone(), layouts }
    }

    #[test]
    fn times_are_differences_within_a_round_over_the_rounds_of_all_layouts() {
        let of = |site| figures("same 25/25", site, 200.0);
        let added = workload(vec![of(10.0), of(20.0)]).added_ns(SITE).unwrap();
        assert_eq!((added.min, added.median, added.max), (9.0, 16.5, 30.0));
        assert_eq!(workload(vec![of(10.0)]).slowdown(SITE).unwrap().median, 1.1);
    }

    #[test]
    fn the_ratio_is_told_for_framehop_at_its_best_and_in_the_median() {
        let of = |framehop| figures("maps", 10.0, framehop);
        let workload = workload(vec![of(100.0), of(400.0), of(400.0)]);
        assert_eq!(workload.ratios(), Some([10.0, 36.0]));
    }

    #[test]
    fn a_wrong_stack_or_another_number_of_stacks_makes_a_row_wrong_if_it_claims_to_be_right() {
        let verdict = |change: fn(&mut Contender)| {
            let mut figures = figures("syn", 10.0, 100.0);
            change(&mut figures.contenders[0]);
            workload(vec![figures]).verdict(SITE)
        };
        assert_eq!(verdict(|_| {}), Verdict::Right);
        assert_eq!(verdict(|site| site.n_sites_timed = None), Verdict::Right);
        assert_eq!(verdict(|site| site.n_wrong = 10), Verdict::Wrong(0.01));
        assert_eq!(verdict(|site| site.n_sites = 8), Verdict::Wrong(0.0));
        assert_eq!(verdict(|site| site.n_sites_timed = Some(6)), Verdict::Wrong(0.0));
        assert_eq!(verdict(|site| site.n_checked = 0), Verdict::Unknown);
        let partly = |site: &mut Contender| {
            (site.is_exact, site.n_wrong, site.n_cut) = (false, 750, 500);
        };
        assert_eq!(verdict(partly), Verdict::Partly(0.25, 0.5));
    }
}
