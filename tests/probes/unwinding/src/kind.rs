//! The kinds of calls: each is a step of a path, and what a capture is counted under.

macro_rules! kinds {
    ($($kind:ident $name:literal,)*) => {
        /// What called the function that captures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($kind,)*
        }

        impl Kind {
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// As it is printed.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

kinds! {
    Root "root of a thread",
    Recursion "recursion",
    Closure "closure",
    TraitObject "trait object",
    Generic "generic",
    OwnFrame "own frame farther out",
    TailCall "tail call",
    Alloca "alloca",
    LiveFramePointer "live frame pointer",
    VariableArray "variable array",
    Realigned "realigned stack",
    DecoyFramePointer "decoy frame pointer",
    WithoutCfi "function without CFI",
    LongJump "longjmp",
    TailCallInC "tail call in C",
    Sorting "qsort",
    CatchUnwind "catch_unwind",
    Unwinding "unwinding",
    Signal "signal",
    AlternateStack "signal on its own stack",
    Coroutine "coroutine",
    Late "library loaded late",
    Interrupted "interrupted anywhere",
}

impl Kind {
    /// Whether this build has such calls.
    pub(crate) const fn is_possible(self) -> bool {
        match self {
            Self::Unwinding => cfg!(panic = "unwind"),
            Self::Late => !cfg!(target_feature = "crt-static"),
            _ => true,
        }
    }
}
