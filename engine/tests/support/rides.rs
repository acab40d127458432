//! Datasets of bicycle rides, and their reports computed in a simple, slow way.

use std::collections::BTreeMap;

use super::naive::{self, date, decimal, file, half_of, show, timestamp};
use super::{Dataset, Random, damage, write_file};

pub(crate) const PLAN: &str = include_str!("../../../plans/rides.toml");

pub(crate) fn dataset(random: &mut Random, rows: u64) -> Dataset {
    let mut rides = Vec::new();
    for n in 0..random.below(rows + 1) {
        let year = random.pick(&["2022", "2023", "2024"]);
        let month = random.pick(&["01", "02", "03", "07"]);
        let time = random.pick(&["05:29:59", "05:30:00", "17:00:00"]);
        let metres = match random.below(8) {
            0 => 3_000_000_000 + random.below(10),
            1 => 5_000,
            _ => random.below(9_000),
        };
        let fare = match random.below(3) {
            0 => String::new(),
            1 => format!("{}.5", random.below(9)),
            _ => format!("-{}.{:03}", random.below(9), random.below(1000)),
        };
        let bike = if random.chance(20) { String::new() } else { format!("b{}", random.below(5)) };
        // The columns have another order than in the plan.
        let mut row = vec![
            format!("{year}-{month}-{:02} {time}", 1 + random.below(28)),
            fare,
            metres.to_string(),
            "note, with comma".to_owned(),
            bike,
            format!("r{}", random.below(50) + n),
        ];
        damage(random, &mut row);
        rides.push(row);
    }
    // Labels and models may occur twice or not at all.
    let mut bikes = Vec::new();
    for _ in 0..random.below(8) {
        let model = if random.chance(25) { String::new() } else { random.below(4).to_string() };
        bikes.push(vec![format!("b{}", random.below(5)), model, format!("{}.5", random.below(20))]);
    }
    let mut models = Vec::new();
    for _ in 0..random.below(5) {
        let maker = random.pick(&["Müller", "A, B \"C\"", "Two\nlines"]).to_owned();
        models.push(vec![maker, random.below(4).to_string(), "2001-02-03".to_owned()]);
    }
    vec![
        vec![(
            "rides/1.csv".into(),
            write_file(random, "started,fare,metres,note,bike,ride_id", &rides),
        )],
        vec![("bikes/1.csv".into(), write_file(random, "bike,model,weight", &bikes))],
        vec![("models.csv".into(), write_file(random, "maker,model,since", &models))],
    ]
}

struct Ride {
    id: String,
    bike: Option<String>,
    metres: i128,
    fare: Option<i128>,
    started: String,
}

type Record = BTreeMap<String, String>;

fn table<T>(files: &[(String, Vec<u8>)], read: impl Fn(&Record) -> Option<T>) -> Vec<T> {
    let records = files.iter().flat_map(|(_, bytes)| naive::read(bytes)).flatten();
    records.filter_map(|record| read(&record)).collect()
}

fn nullable<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

/// Rounds half to even, by comparing twice the remainder.
fn divide(n: i128, d: i128) -> i128 {
    let floor = n.div_euclid(d);
    let rest = n.rem_euclid(d) * 2;
    if rest > d || (rest == d && floor % 2 != 0) { floor + 1 } else { floor }
}

fn text<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map(show).unwrap_or_default()
}

pub(crate) fn reports(dataset: &Dataset) -> Vec<(&'static str, String)> {
    let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let rides = table(&dataset[0], |r| {
        Some(Ride {
            id: owned(&r["ride_id"])?,
            bike: owned(&r["bike"]),
            metres: decimal(&r["metres"], 0)?,
            fare: nullable(&r["fare"], |text| decimal(text, 3))?,
            started: timestamp(&r["started"])?,
        })
    });
    let bikes = table(&dataset[1], |r| {
        Some((
            owned(&r["bike"])?,
            nullable(&r["model"], |t| decimal(t, 0))?,
            decimal(&r["weight"], 1)?,
        ))
    });
    let models = table(&dataset[2], |r| {
        Some((decimal(&r["model"], 0)?, owned(&r["maker"])?, date(&r["since"])?))
    });
    vec![
        ("long_rides.csv", long_rides(&rides, &bikes)),
        ("bikes_per_half.csv", bikes_per_half(&rides, &bikes, &models)),
        ("totals.csv", totals(&rides)),
    ]
}

type Bike = (String, Option<i128>, i128);

fn long_rides(rides: &[Ride], bikes: &[Bike]) -> String {
    let mut rows = Vec::new();
    for ride in rides {
        let month = &ride.started[5..7];
        let Some(bike) = &ride.bike else { continue };
        if ride.metres < 5000 || month == "01" || month == "02" {
            continue;
        }
        for (_, _, weight) in bikes.iter().filter(|(label, ..)| label == bike) {
            let day = ride.started[..10].to_owned();
            let km = ride.metres * 1_000;
            // The order of the plan, then all columns: ride, bike, km, fare, day, weight.
            let key = (std::cmp::Reverse(day.clone()), ride.id.clone(), bike.clone(), km);
            rows.push((key, ride.fare.unwrap_or(0), *weight));
        }
    }
    rows.sort();
    let rows = rows.into_iter().take(20).map(|((day, id, _, km), fare, weight)| {
        vec![day.0, id, show(km, 6), show(fare, 3), show(weight, 1)]
    });
    file("day,ride,km,fare,kilograms", rows)
}

/// A label, ordered so that `None` comes last.
type Label = (bool, Option<String>);

fn bikes_per_half(rides: &[Ride], bikes: &[Bike], models: &[(i128, String, String)]) -> String {
    let mut groups: BTreeMap<String, BTreeMap<Label, Vec<&Ride>>> = BTreeMap::new();
    for ride in rides {
        if &ride.started[11..] < "05:30:00" || ride.bike.as_deref() == Some("b0") {
            continue;
        }
        let key = (ride.bike.is_none(), ride.bike.clone());
        groups.entry(half_of(&ride.started)).or_default().entry(key).or_default().push(ride);
    }
    let mut rows = Vec::new();
    for (half, groups) in &groups {
        let mut counts: Vec<_> = groups.values().map(Vec::len).collect();
        counts.sort_by(|a, b| b.cmp(a));
        let least = counts.get(1).or(counts.first()).copied().unwrap_or(0);
        for ((_, bike), rides) in groups.iter().filter(|(_, rides)| rides.len() >= least) {
            let fares: Vec<_> = rides.iter().filter_map(|ride| ride.fare).collect();
            let sum = (!fares.is_empty()).then(|| fares.iter().sum::<i128>());
            let mean = sum.map(|sum| divide(sum * 1_000_000, fares.len() as i128));
            let start = vec![
                half.clone(),
                bike.clone().unwrap_or_default(),
                rides.len().to_string(),
                fares.len().to_string(),
                text(sum, |sum| show(sum, 3)),
                text(mean, |mean| show(mean, 9)),
                rides.iter().map(|ride| ride.id.clone()).min().unwrap(),
                rides.iter().map(|ride| ride.metres).max().unwrap().to_string(),
            ];
            let order =
                (half.clone(), std::cmp::Reverse(rides.len()), bike.is_none(), bike.clone());
            let labelled = bikes.iter().filter(|(label, ..)| Some(label) == bike.as_ref());
            let mut found: Vec<_> = labelled.map(|(_, model, _)| *model).collect();
            if found.is_empty() {
                found.push(None);
            }
            for model in found {
                let mut made: Vec<_> = models
                    .iter()
                    .filter(|(number, ..)| Some(*number) == model)
                    .map(|(_, maker, since)| (maker.clone(), since.clone()))
                    .collect();
                if made.is_empty() {
                    made.push((String::new(), String::new()));
                }
                for (maker, since) in made {
                    let mut row = start.clone();
                    row.extend([maker.clone(), since.clone()]);
                    rows.push((
                        (order.clone(), model.is_none(), model, maker.is_empty(), maker),
                        row,
                    ));
                }
            }
        }
    }
    rows.sort();
    file(
        "half,bike,rides,paid,fares,mean,first,longest,maker,since",
        rows.into_iter().map(|(_, row)| row),
    )
}

fn totals(rides: &[Ride]) -> String {
    let (mut count, mut load, mut sum, mut last) = (0, 0, 0, String::new());
    for ride in rides {
        let cube = ride.metres.pow(3);
        let fits = i64::try_from(cube).is_ok() && i64::try_from(ride.metres.pow(2)).is_ok();
        if &ride.started[..4] < "2023" || !fits {
            continue;
        }
        count += 1;
        load += cube;
        sum += ride.metres;
        last = last.max(ride.started.clone());
    }
    let row = if count == 0 {
        vec!["0".to_owned(), String::new(), String::new(), String::new()]
    } else {
        let mean = divide(sum * 1_000_000, count);
        vec![count.to_string(), load.to_string(), last, show(mean, 6)]
    };
    file("rides,load,last,mean", [row])
}
