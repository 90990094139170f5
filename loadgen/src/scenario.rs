//! What a session does after its login: steps, by a profile's name or from a
//! TOML file.
//!
//! Profiles and files are one language, so that whatever a profile can do a
//! file can vary:
//!
//! ```toml
//! [[session]]
//! name = "desktop"
//! weight = 70
//! steps = ["stat", "uidl", "retr new", "think 0.5..2"]
//!
//! [[session]]
//! name = "batch"
//! weight = 30
//! pipelining = true
//! steps = ["stat", "list", "uidl", "take 200"]
//! ```

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::random::Random;

/// Which messages a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every message, in order.
    All,
    /// Those whose UIDL no earlier session of the user fetched.
    New,
    /// So many at random, or all where there are fewer.
    Random(u32),
}

/// One part of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// CAPA.
    Capa,
    /// NOOP.
    Noop,
    /// STAT.
    Stat,
    /// LIST of all messages.
    List,
    /// UIDL of all messages.
    Uidl,
    /// RSET.
    Rset,
    /// TOP with so many lines of the body.
    Top(Which, u32),
    /// RETR.
    Retr(Which),
    /// DELE without having fetched.
    Dele(Which),
    /// RETR and, where the message arrived whole, DELE.
    Take(Which),
    /// A pause of a length between the two.
    Think(Duration, Duration),
    /// Idle until the run is over.
    Hold,
}

/// A kind of session.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// In reports.
    pub name: String,
    /// Its share, relative to the others'.
    pub weight: f64,
    /// Commands are sent without waiting for replies that they do not need.
    pub pipelining: bool,
    /// Between login and QUIT.
    pub steps: Vec<Step>,
}

/// Kinds of session with their shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix(Vec<Scenario>);

/// Profile by name, with what it does, for `--help` and the README.
pub const PROFILES: [(&str, &str); 8] = [
    ("login", ""),
    ("poll", "stat, uidl"),
    ("fetch", "stat, list, uidl, retr K"),
    ("drain", "stat, list, uidl, take all"),
    ("leave-on-server", "stat, uidl, list, retr new"),
    ("webmail", "capa, stat, uidl, list, retr 200"),
    (
        "abusive",
        "stat, list, uidl, top 20 0, noop, stat, list, uidl, top 20 0, noop",
    ),
    ("idle", "hold"),
];

/// Most steps of a session in a file: beyond is a slip.
const MOST_STEPS: usize = 10_000;
/// Longest pause.
const LONGEST_THINK: f64 = 86_400.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    session: Vec<Session>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Session {
    name: String,
    #[serde(default = "one")]
    weight: f64,
    #[serde(default)]
    pipelining: Option<bool>,
    steps: Vec<String>,
}

const fn one() -> f64 {
    1.0
}

impl Scenario {
    /// The profile of this name; `messages` is what K stands for.
    pub fn profile(name: &str, messages: u32, pipelining: bool) -> Result<Self, String> {
        let Some((_, steps)) = PROFILES.iter().find(|(known, _)| *known == name) else {
            let names: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "{name} is no profile; there are {}",
                names.join(", ")
            ));
        };
        let steps = steps.replace('K', &messages.to_string());
        let words = steps.split(", ").filter(|step| !step.is_empty());
        Ok(Self {
            name: name.to_owned(),
            weight: 1.0,
            pipelining,
            steps: parse_steps(words)?,
        })
    }

    /// Whether sessions of it wait for the end of the run.
    pub fn holds(&self) -> bool {
        self.steps.contains(&Step::Hold)
    }
}

impl Mix {
    /// One kind of session only.
    pub fn of(scenario: Scenario) -> Self {
        Self(vec![scenario])
    }

    /// From `poll=70,fetch=30`.
    pub fn parse(text: &str, messages: u32, pipelining: bool) -> Result<Self, String> {
        let mut scenarios = Vec::new();
        for part in text.split(',') {
            let form = || format!("--mix {text}: write it as poll=70,fetch=30");
            let (name, weight) = part.trim().split_once('=').ok_or_else(form)?;
            let mut scenario = Scenario::profile(name.trim(), messages, pipelining)
                .map_err(|e| format!("--mix {text}: {e}"))?;
            scenario.weight = weight.trim().parse().map_err(|_| form())?;
            scenarios.push(scenario);
        }
        Self::checked(scenarios).map_err(|e| format!("--mix {text}: {e}"))
    }

    /// From a file; see the module's documentation.
    ///
    /// Errors are for the operator: they name the file and the session.
    pub fn from_file(path: &Path, pipelining: bool) -> Result<Self, String> {
        let name = path.display();
        let text = fs::read_to_string(path).map_err(|e| format!("--scenario {name}: {e}"))?;
        Self::from_toml(&text, pipelining).map_err(|e| format!("--scenario {name}: {e}"))
    }

    fn from_toml(text: &str, pipelining: bool) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        let scenarios = file.session.into_iter().map(|session| {
            let words = session.steps.iter().map(String::as_str);
            Ok(Scenario {
                steps: parse_steps(words).map_err(|e| format!("{}: {e}", session.name))?,
                weight: session.weight,
                pipelining: session.pipelining.unwrap_or(pipelining),
                name: session.name,
            })
        });
        Self::checked(scenarios.collect::<Result<_, String>>()?)
    }

    fn checked(scenarios: Vec<Scenario>) -> Result<Self, String> {
        if scenarios.is_empty() {
            return Err("names no session".to_owned());
        }
        if let Some(bad) = scenarios
            .iter()
            .find(|s| !(s.weight > 0.0 && s.weight.is_finite()))
        {
            return Err(format!("{}: a weight is a number above 0", bad.name));
        }
        if scenarios.len() > 1 && scenarios.iter().any(Scenario::holds) {
            return Err("sessions that hold cannot be mixed with others".to_owned());
        }
        Ok(Self(scenarios))
    }

    /// Whether sessions of it wait for the end of the run; then all do.
    pub fn holds(&self) -> bool {
        self.0.iter().any(Scenario::holds)
    }

    /// Whether sessions of it fetch messages.
    pub fn fetches(&self) -> bool {
        let mut steps = self.0.iter().flat_map(|scenario| &scenario.steps);
        steps.any(|step| matches!(step, Step::Retr(_) | Step::Take(_)))
    }

    /// All kinds.
    pub fn scenarios(&self) -> &[Scenario] {
        &self.0
    }

    /// One by weight: its number.
    pub fn choose(&self, random: &mut Random) -> usize {
        if self.0.len() == 1 {
            return 0;
        }
        let sum: f64 = self.0.iter().map(|s| s.weight).sum();
        let mut left = random.fraction() * sum;
        for (number, scenario) in self.0.iter().enumerate() {
            left -= scenario.weight;
            if left < 0.0 {
                return number;
            }
        }
        self.0.len() - 1
    }

    /// In reports: the name, or the names with their weights.
    pub fn name(&self) -> String {
        match &self.0[..] {
            [only] => only.name.clone(),
            all => {
                let parts: Vec<String> = all
                    .iter()
                    .map(|s| format!("{}={}", s.name, s.weight))
                    .collect();
                parts.join(",")
            }
        }
    }
}

fn parse_steps<'a>(words: impl Iterator<Item = &'a str>) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let (mut counted, mut named, mut held) = (false, false, false);
    for word in words {
        let step = parse_step(word)?;
        if held {
            return Err("nothing can follow hold".to_owned());
        }
        if let Step::Top(which, _) | Step::Retr(which) | Step::Dele(which) | Step::Take(which) =
            step
        {
            if !counted {
                return Err(format!("{word} needs stat or list before it"));
            }
            if which == Which::New && !named {
                return Err(format!("{word} needs uidl before it"));
            }
        }
        counted |= matches!(step, Step::Stat | Step::List);
        named |= step == Step::Uidl;
        held |= step == Step::Hold;
        steps.push(step);
        if steps.len() > MOST_STEPS {
            return Err(format!("more than {MOST_STEPS} steps"));
        }
    }
    Ok(steps)
}

fn parse_step(text: &str) -> Result<Step, String> {
    let unknown = || {
        format!(
            "{text:?} is no step; there are capa, noop, stat, list, uidl, rset, hold, `retr|dele|take \
             all|new|N`, `top all|new|N LINES`, `think SECONDS` and `think FROM..TO`"
        )
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let which = |word: &str| match word {
        "all" => Ok(Which::All),
        "new" => Ok(Which::New),
        number => number.parse().map(Which::Random).map_err(|_| unknown()),
    };
    Ok(match words[..] {
        ["capa"] => Step::Capa,
        ["noop"] => Step::Noop,
        ["stat"] => Step::Stat,
        ["list"] => Step::List,
        ["uidl"] => Step::Uidl,
        ["rset"] => Step::Rset,
        ["hold"] => Step::Hold,
        ["retr", word] => Step::Retr(which(word)?),
        ["dele", word] => Step::Dele(which(word)?),
        ["take", word] => Step::Take(which(word)?),
        ["top", word, lines] => Step::Top(which(word)?, lines.parse().map_err(|_| unknown())?),
        ["think", span] => {
            let (least, most) = span.split_once("..").unwrap_or((span, span));
            let seconds = |word: &str| {
                let value: f64 = word.parse().map_err(|_| unknown())?;
                let sound = (0.0..=LONGEST_THINK).contains(&value);
                sound
                    .then(|| Duration::from_secs_f64(value))
                    .ok_or_else(unknown)
            };
            let (least, most) = (seconds(least)?, seconds(most)?);
            if most < least {
                return Err(format!("{text:?} counts downwards"));
            }
            Step::Think(least, most)
        }
        _ => return Err(unknown()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_sound() {
        for (name, _) in PROFILES {
            let profile = Scenario::profile(name, 5, false).expect(name);
            assert_eq!(profile.holds(), name == "idle");
        }
        let fetch = Scenario::profile("fetch", 7, false).expect("fetch");
        assert_eq!(fetch.steps.last(), Some(&Step::Retr(Which::Random(7))));
        let error = Scenario::profile("sing", 5, false).expect_err("unknown");
        assert!(error.contains("poll"), "{error}");
    }

    #[test]
    fn a_file_is_what_it_says() {
        let text = "[[session]]\nname='a'\nsteps=['stat', 'top 3 10', 'think 0.5..2']\n\
                    [[session]]\nname='b'\nweight=3\npipelining=true\nsteps=[]\n";
        let mix = Mix::from_toml(text, false).expect("sound");
        let [a, b] = mix.scenarios() else {
            panic!("two sessions")
        };
        let think = Step::Think(Duration::from_millis(500), Duration::from_secs(2));
        assert_eq!(
            a.steps,
            [Step::Stat, Step::Top(Which::Random(3), 10), think]
        );
        assert_eq!((a.weight, a.pipelining), (1.0, false));
        assert_eq!((b.weight, b.pipelining), (3.0, true));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (steps, reason) in [
            ("['sing']", "is no step"),
            ("['retr 1']", "needs stat or list"),
            ("['stat', 'retr new']", "needs uidl"),
            ("['think -1']", "is no step"),
            ("['think 2..1']", "downwards"),
            ("['hold', 'stat']", "follow hold"),
        ] {
            let text = format!("[[session]]\nname='a'\nsteps={steps}\n");
            let error = Mix::from_toml(&text, false).expect_err(steps);
            assert!(error.contains(reason), "{error}");
        }
        for text in ["", "session=[]", "[[session]]\nname='a'\nsteps=[]\nx=1\n"] {
            assert!(Mix::from_toml(text, false).is_err(), "{text}");
        }
        for text in ["poll", "poll=x", "poll=0", "sing=1", "poll=1,idle=1"] {
            assert!(Mix::parse(text, 5, false).is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_come_by_their_weight() {
        let mix = Mix::parse("poll=3,login=1", 5, false).expect("sound");
        let mut random = Random::new(1);
        let polls = (0..10_000).filter(|_| mix.choose(&mut random) == 0).count();
        assert!((7_300..7_700).contains(&polls), "{polls} of 10000");
    }
}
