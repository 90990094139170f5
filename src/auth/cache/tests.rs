//! What is known, for how long, and what is never kept.

use std::net::Ipv4Addr;

use super::*;
use crate::auth::{Network, Password, Token};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials::new(
        UserName::new(user.as_bytes()).expect("a name"),
        Password::new(password.as_bytes()).expect("short"),
    )
}

fn admission(user: &str) -> Admission {
    Admission {
        account: Account {
            user: UserName::new(user.as_bytes()).expect("a name"),
            home: Some("/home".into()),
            mail: None,
            limits: None,
        },
        networks: None,
        until: None,
    }
}

/// A cache, and the time.
struct Fixture {
    cache: LoginCache,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self::with_room(1000)
    }

    fn with_room(entries: usize) -> Self {
        Self {
            cache: LoginCache::with_room(entries, entries, entries, entries),
            now: Instant::now(),
        }
    }

    fn put(&self, user: &str, password: &str) {
        let fingerprint = self.cache.fingerprint(&credentials(user, password));
        let generation = self.cache.generation();
        self.cache.put(
            &admission(user).account.user,
            fingerprint,
            generation,
            admission(user),
            self.now,
        );
    }

    fn put_bad(&self, user: &str, password: &str) {
        let credentials = credentials(user, password);
        let fingerprint = self.cache.fingerprint(&credentials);
        let generation = self.cache.generation();
        let owner = credentials.identity.owner();
        self.cache.forget(owner, &fingerprint);
        self.cache
            .put_bad(owner, &fingerprint, HERE, generation, self.now);
    }

    fn recall_from(&self, user: &str, password: &str, from: IpAddr) -> Recall {
        let credentials = credentials(user, password);
        let fingerprint = self.cache.fingerprint(&credentials);
        self.cache
            .recall(credentials.identity.owner(), &fingerprint, from, self.now)
    }

    fn recall(&self, user: &str, password: &str) -> Recall {
        self.recall_from(user, password, HERE)
    }

    fn last_known(&self, user: &str, password: &str) -> Option<Account> {
        let credentials = credentials(user, password);
        let fingerprint = self.cache.fingerprint(&credentials);
        self.cache
            .last_known(credentials.identity.owner(), &fingerprint, HERE, self.now)
    }
}

fn good(user: &str) -> Recall {
    Recall::Good(admission(user).account)
}

#[test]
fn the_same_password_is_known_and_no_other_one() {
    let fixture = Fixture::new();
    assert_eq!(fixture.recall("ann", "right"), Recall::Unknown);
    fixture.put("ann", "right");
    assert_eq!(fixture.recall("ann", "right"), good("ann"));
    for (user, password) in [
        ("ann", "wrong"),
        ("ann", ""),
        ("bob", "right"),
        ("an", "nright"),
    ] {
        let recall = fixture.recall(user, password);
        assert_eq!(recall, Recall::Unknown, "{user} {password}");
    }
    assert_eq!(fixture.cache.counts().good, 1);
}

#[test]
fn a_new_password_takes_the_place_of_the_old_one() {
    let fixture = Fixture::new();
    fixture.put("ann", "old");
    fixture.put("ann", "new");
    // It is looked up again before it counts, and believed on no other ground.
    assert_eq!(fixture.recall("ann", "old"), Recall::Faded);
    assert_eq!(fixture.last_known("ann", "old"), None);
    assert_eq!(fixture.recall("ann", "new"), good("ann"));
}

/// Tokens of two clients, or passwords of two programs.
#[test]
fn two_that_are_both_right_are_both_known() {
    let mut fixture = Fixture::new();
    for password in ["phone", "laptop", "phone"] {
        fixture.put("ann", password);
    }
    for password in ["phone", "laptop"] {
        assert_eq!(fixture.recall("ann", password), good("ann"), "{password}");
    }
    fixture.put_bad("ann", "phone");
    assert_eq!(fixture.recall("ann", "phone"), Recall::Bad);
    assert_eq!(fixture.recall("ann", "laptop"), good("ann"));
    // Those that were not used for longest give way.
    for number in 0..limits::AUTH_CACHE_OF_A_NAME {
        fixture.now += Duration::from_secs(1);
        fixture.put("ann", &number.to_string());
    }
    assert_eq!(fixture.recall("ann", "laptop"), Recall::Unknown);
    assert_eq!(fixture.recall("ann", "0"), Recall::Faded);
}

#[test]
fn a_good_login_fades_and_comes_back_with_the_next_lookup() {
    let mut fixture = Fixture::new();
    fixture.put("ann", "pw");
    fixture.now += Terms::default()
        .good
        .saturating_sub(Duration::from_millis(1));
    assert_eq!(fixture.recall("ann", "pw"), good("ann"));
    fixture.now += Duration::from_millis(1);
    assert_eq!(fixture.recall("ann", "pw"), Recall::Faded);
    fixture.put("ann", "pw");
    assert_eq!(fixture.recall("ann", "pw"), good("ann"));
    // What turned out to be wrong meanwhile is no longer good.
    fixture.put_bad("ann", "pw");
    assert_eq!(fixture.recall("ann", "pw"), Recall::Bad);
    assert_eq!(fixture.last_known("ann", "pw"), None);
}

#[test]
fn a_bad_login_is_bad_for_a_while_and_a_new_password_works_at_once() {
    let mut fixture = Fixture::new();
    fixture.put("ann", "old");
    fixture.put_bad("ann", "guess");
    assert_eq!(fixture.recall("ann", "guess"), Recall::Bad);
    assert_eq!(fixture.recall("ann", "other"), Recall::Unknown);
    assert_eq!(fixture.recall("bob", "guess"), Recall::Unknown);
    assert_eq!(fixture.recall("ann", "old"), good("ann"));
    fixture.now += Terms::default().bad;
    assert_eq!(fixture.recall("ann", "guess"), Recall::Faded);
    fixture.put_bad("ann", "new");
    fixture.put("ann", "new");
    assert_eq!(fixture.recall("ann", "new"), good("ann"));
    assert_eq!(fixture.cache.counts().bad, 1);
}

#[test]
fn what_was_known_before_a_reload_is_void_unless_a_directory_is_down() {
    let mut fixture = Fixture::new();
    let before = fixture.cache.generation();
    fixture.put("ann", "pw");
    fixture.put_bad("ann", "guess");
    fixture.cache.invalidate();
    assert_eq!(fixture.recall("ann", "pw"), Recall::Faded);
    assert_eq!(fixture.recall("ann", "guess"), Recall::Faded);
    // Looked up before the reload, verified after it.
    let fingerprint = fixture.cache.fingerprint(&credentials("bob", "pw"));
    let admitted = admission("bob");
    fixture.cache.put(
        &admitted.account.user.clone(),
        fingerprint,
        before,
        admitted,
        fixture.now,
    );
    assert_eq!(fixture.recall("bob", "pw"), Recall::Faded);

    fixture.now += Terms::default()
        .stale
        .saturating_sub(Duration::from_secs(1));
    let account = Some(admission("ann").account);
    assert_eq!(fixture.last_known("ann", "pw"), account);
    assert_eq!(fixture.last_known("ann", "guess"), None);
    fixture.now += Duration::from_secs(1);
    assert_eq!(fixture.last_known("ann", "pw"), None);
    assert_eq!(fixture.cache.counts().stale, 1);
}

#[test]
fn terms_can_be_changed_and_be_none() {
    let fixture = Fixture::new();
    fixture.put("ann", "pw");
    fixture.put_bad("ann", "guess");
    fixture.cache.set_terms(Terms {
        good: Duration::ZERO,
        bad: Duration::ZERO,
        stale: Duration::ZERO,
    });
    assert_eq!(fixture.recall("ann", "pw"), Recall::Faded);
    assert_eq!(fixture.recall("ann", "guess"), Recall::Faded);
    assert_eq!(fixture.last_known("ann", "pw"), None);
    fixture.cache.set_terms(Terms::default());
    assert_eq!(fixture.recall("ann", "pw"), good("ann"));
}

#[test]
fn an_address_that_is_not_allowed_is_not_answered() {
    let fixture = Fixture::new();
    let near = "192.0.2.0/24".parse::<Network>().expect("a network");
    let admission = Admission {
        networks: Some([near].into()),
        ..admission("ann")
    };
    let fingerprint = fixture.cache.fingerprint(&credentials("ann", "pw"));
    let generation = fixture.cache.generation();
    let user = admission.account.user.clone();
    let cache = &fixture.cache;
    cache.put(&user, fingerprint, generation, admission, fixture.now);
    assert_eq!(fixture.recall("ann", "pw"), Recall::Unknown);
    assert_eq!(fixture.last_known("ann", "pw"), None);
    let near = "192.0.2.9".parse().expect("an address");
    assert_eq!(fixture.recall_from("ann", "pw", near), good("ann"));
    // What is refused there is nothing that is known here.
    fixture
        .cache
        .put_bad(&user, &fingerprint, HERE, generation, fixture.now);
    assert_eq!(fixture.recall("ann", "pw"), Recall::Bad);
    assert_eq!(fixture.recall_from("ann", "pw", near), good("ann"));
}

#[test]
fn what_a_token_proved_ends_with_it() {
    let mut fixture = Fixture::new();
    let admission = Admission {
        until: Some(fixture.now + Duration::from_mins(1)),
        ..admission("ann")
    };
    let user = UserName::new(b"ann").expect("a name");
    let of = |token: &str| Credentials {
        identity: Identity::own(user.clone()),
        evidence: Evidence::Token(Token::new(token).expect("a token")),
    };
    let cache = &fixture.cache;
    let fingerprint = cache.fingerprint(&of("one"));
    assert!(fingerprint != cache.fingerprint(&of("other")));
    assert!(fingerprint != cache.fingerprint(&credentials("ann", "one")));
    cache.put(
        &admission.account.user.clone(),
        fingerprint,
        cache.generation(),
        admission,
        fixture.now,
    );
    let recall = |fixture: &Fixture| {
        let from = "127.0.0.1".parse().expect("an address");
        let recalled = fixture.cache.recall(&user, &fingerprint, from, fixture.now);
        let last = fixture
            .cache
            .last_known(&user, &fingerprint, from, fixture.now);
        (recalled, last.is_some())
    };
    fixture.now += Duration::from_secs(59);
    assert_eq!(recall(&fixture), (good("ann"), true));
    fixture.now += Duration::from_secs(1);
    assert_eq!(recall(&fixture), (Recall::Faded, false));
}

#[test]
fn a_hash_is_known_for_one_password_and_one_stored_password() {
    let cache = Fixture::new().cache;
    let stored = |text: &str| Verifier::parse(text.as_bytes()).expect("a scheme");
    let argon2 = "{ARGON2ID}$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4";
    let bcrypt = "{BLF-CRYPT}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
    let sha = "$5$saltstring$hixOXgchwauyzVtlSM/e7UnQx0qiTk74JE/YU53IbE0";
    let [ann, bob] = ["ann", "bob"].map(|user| cache.fingerprint(&credentials(user, "pw")));
    assert!(cache.hash_key(&ann, &stored("{PLAIN}pw")).is_none());
    let keys: Vec<HashKey> = [argon2, bcrypt, sha]
        .iter()
        .flat_map(|text| [&ann, &bob].map(|who| cache.hash_key(who, &stored(text))))
        .map(|key| key.expect("slow"))
        .collect();
    for (at, key) in keys.iter().enumerate() {
        assert_eq!(cache.hash(key), None);
        cache.put_hash(*key, at % 2 == 0);
    }
    for (at, key) in keys.iter().enumerate() {
        assert_eq!(cache.hash(key), Some(at % 2 == 0));
    }
    // A reload does not change what a hash is.
    cache.invalidate();
    assert_eq!(cache.hash(&keys[0]), Some(true));
    let again = cache.hash_key(&ann, &stored(argon2)).expect("slow");
    assert_eq!(cache.hash(&again), Some(true));
    assert_eq!(cache.counts().hashes, keys.len() as u64 + 2);
}

#[test]
fn the_bound_holds_and_who_comes_often_stays() {
    let entries = STRIPES * 4;
    let fixture = Fixture::with_room(entries);
    fixture.put("often", "pw");
    for number in 0..entries * 20 {
        fixture.put(&format!("user{number}"), "pw");
        fixture.put_bad(&format!("user{number}"), "guess");
        assert_eq!(fixture.recall("often", "pw"), good("often"), "{number}");
    }
    for stripe in &fixture.cache.stripes {
        let stripe = lock(stripe);
        assert!(stripe.good.len() <= 4 && stripe.bad.len() <= 4);
    }
}

/// A million users who poll by turns, the worst order there is for a table that is too
/// small: none of them costs a look-up, nor a hash where there has to be one.
#[test]
fn tokens_that_are_over_take_nobody_s_place() {
    let mut fixture = Fixture::new();
    fixture.put("ann", "desk");
    let put_token = |fixture: &Fixture, number: u8| {
        let admission = Admission {
            until: Some(fixture.now + Duration::from_mins(1)),
            ..admission("ann")
        };
        let user = admission.account.user.clone();
        let generation = fixture.cache.generation();
        let fingerprint = Fingerprint([number; DIGEST]);
        let (cache, now) = (&fixture.cache, fixture.now);
        cache.put(&user, fingerprint, generation, admission, now);
    };
    for number in 1..10 {
        fixture.now += Duration::from_mins(2);
        put_token(&fixture, number);
    }
    // Doubted since another was new, and there.
    assert_eq!(fixture.recall("ann", "desk"), Recall::Faded);
}

#[test]
fn no_login_of_a_name_is_good_any_more_when_all_are_forgotten() {
    let mut fixture = Fixture::new();
    for password in ["phone", "laptop", "phone"] {
        fixture.put("ann", password);
    }
    fixture.put("bob", "desk");
    fixture.cache.forget_all(&admission("ann").account.user);
    for password in ["phone", "laptop"] {
        assert_eq!(fixture.recall("ann", password), Recall::Unknown);
        assert_eq!(fixture.last_known("ann", password), None);
    }
    assert_eq!(fixture.recall("bob", "desk"), good("bob"));
    fixture.now += Duration::from_secs(1);
    fixture.put("ann", "phone");
    assert_eq!(fixture.recall("ann", "phone"), good("ann"));
}

#[test]
fn a_million_users_are_all_remembered() {
    const USERS: u64 = 1_000_000;
    let cache = LoginCache::new(Terms::default());
    let now = Instant::now();
    // Neither is computed here: that takes long where nothing is optimised.
    let fingerprint = |number: u64| {
        let mut octets = [0; DIGEST];
        octets[..8].copy_from_slice(&number.to_le_bytes());
        Fingerprint(octets)
    };
    let hash = |number: u64| {
        let mut octets = [0; DIGEST / 2];
        octets[..8].copy_from_slice(&number.to_le_bytes());
        HashKey(octets)
    };
    let generation = cache.generation();
    for turn in 0..3 {
        for number in 0..USERS {
            let name = UserName::new(number.to_string().as_bytes()).expect("a name");
            if turn == 0 {
                let account = Account {
                    user: name.clone(),
                    home: None,
                    mail: None,
                    limits: None,
                };
                let admission = Admission {
                    account,
                    networks: None,
                    until: None,
                };
                cache.put(&name, fingerprint(number), generation, admission, now);
                cache.put_hash(hash(number), true);
                continue;
            }
            let recall = cache.recall(&name, &fingerprint(number), HERE, now);
            assert!(matches!(recall, Recall::Good(_)), "{number}");
            assert!(cache.knows_hash(&hash(number)), "{number}");
        }
    }
}

#[test]
fn two_processes_have_two_keys() {
    let [one, other] = [0; 2].map(|_| Fixture::new().cache);
    let ann = credentials("ann", "pw");
    assert!(one.fingerprint(&ann) != other.fingerprint(&ann));
    assert!(one.fingerprint(&ann) == one.fingerprint(&ann));
}
