//! What the policy decided, with its reason in words.

use std::fmt;
use std::time::Duration;

/// The count that the fleet should have now, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The declared count before.
    pub current: u32,
    /// The declared count to set.
    pub desired: u32,
    /// What the load alone asks for, within the bounds; before cool-downs, stabilisation and step limits.
    pub recommended: u32,
    /// Mean CPU of the machines that were measured, per cent.
    pub mean_cpu_percent: Option<f64>,
    /// Why.
    pub reason: Reason,
}

/// Why a count was chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// Fewer machines than the declared minimum.
    BelowMin {
        /// The minimum.
        min: u32,
    },
    /// More machines than the declared maximum.
    AboveMax {
        /// The maximum.
        max: u32,
    },
    /// No machine has usable metrics.
    NoMetrics {
        /// The first machine's reason, when there is one.
        why: Option<String>,
    },
    /// The load asks for fewer, but some machines are not known, so none is removed.
    MissingMetrics {
        /// How many.
        machines: u32,
        /// The first one's name and reason.
        why: String,
    },
    /// Near enough to the target.
    OnTarget,
    /// Above the target, but machines that are warming up will take their share.
    WarmingUp {
        /// How many.
        machines: u32,
    },
    /// Below the target, but one machine fewer would be above it.
    Needed,
    /// The load asks for more.
    ScaleOut,
    /// The load asks for more, but the maximum is reached.
    AtMax,
    /// The load asks for more, but the last step out was a moment ago.
    OutCooldown {
        /// Until a step may follow.
        left: Duration,
    },
    /// The load asks for fewer.
    ScaleIn,
    /// The load asks for fewer, but the minimum is reached.
    AtMin,
    /// The load asks for fewer, but asked for more within the window.
    Stabilising {
        /// The highest recommendation in the window.
        highest: u32,
        /// The window.
        window: Duration,
    },
    /// The load asks for fewer, but the last step was a moment ago.
    InCooldown {
        /// Until a step may follow.
        left: Duration,
    },
}

impl Decision {
    /// Whether the declared count changes.
    pub fn changes(&self) -> bool {
        self.current != self.desired
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes() {
            let noun = if self.desired == 1 {
                "machine"
            } else {
                "machines"
            };
            write!(f, "{} -> {} {noun}: ", self.current, self.desired)?;
        } else {
            let (noun, verb) = if self.current == 1 {
                ("machine", "stays")
            } else {
                ("machines", "stay")
            };
            write!(f, "{} {noun} {verb}: ", self.current)?;
        }
        if let Some(mean) = self.mean_cpu_percent {
            write!(f, "mean cpu {mean:.0} %, ")?;
        }
        if self.recommended != self.desired {
            write!(f, "{} wanted, ", self.recommended)?;
        }
        write!(f, "{}", self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BelowMin { min } => write!(f, "the declared minimum is {min}"),
            Self::AboveMax { max } => write!(f, "the declared maximum is {max}"),
            Self::NoMetrics { why: None } => write!(f, "no machine is measured yet"),
            Self::NoMetrics { why: Some(why) } => {
                write!(f, "no machine has usable metrics ({why})")
            }
            Self::MissingMetrics { machines, why } => {
                write!(
                    f,
                    "none is removed while the load of {machines} is not known ({why})"
                )
            }
            Self::OnTarget => write!(f, "near the target"),
            Self::WarmingUp { machines: 1 } => {
                write!(f, "above the target, but a further machine is warming up")
            }
            Self::WarmingUp { machines } => write!(
                f,
                "above the target, but {machines} further machines are warming up"
            ),
            Self::Needed => write!(f, "below the target, but fewer would be above it"),
            Self::ScaleOut => write!(f, "above the target"),
            Self::AtMax => write!(f, "above the target, but the maximum is reached"),
            Self::OutCooldown { left } => {
                write!(f, "above the target, next step in {}", seconds(*left))
            }
            Self::ScaleIn => write!(f, "below the target"),
            Self::AtMin => write!(f, "below the target, but the minimum is reached"),
            Self::Stabilising { highest, window } => {
                write!(
                    f,
                    "below the target, but {highest} were needed within the last {}",
                    seconds(*window)
                )
            }
            Self::InCooldown { left } => {
                write!(f, "below the target, next step in {}", seconds(*left))
            }
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64().ceil())
}
