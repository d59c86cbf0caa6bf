// Compares one tensor of a raw golden pack with a file of your own: rustc -O --edition 2021 compare.rs && ./compare RAW NAME MINE.bin
use std::{env, fs, process};

fn fail(code: i32, message: String) -> ! {
    eprintln!("{message}");
    process::exit(code)
}

fn read(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|problem| fail(2, format!("{path}: {problem}")))
}

fn size_of(dtype: &str) -> usize {
    match dtype {
        "f64" | "i64" => 8,
        "f32" | "i32" => 4,
        "bf16" => 2,
        _ => 1,
    }
}

fn number(dtype: &str, bytes: &[u8]) -> f64 {
    match dtype {
        "f64" => f64::from_le_bytes(bytes.try_into().unwrap()),
        "f32" => f32::from_le_bytes(bytes.try_into().unwrap()) as f64,
        "bf16" => f32::from_le_bytes([0, 0, bytes[0], bytes[1]]) as f64,
        "i64" => i64::from_le_bytes(bytes.try_into().unwrap()) as f64,
        "i32" => i32::from_le_bytes(bytes.try_into().unwrap()) as f64,
        _ => bytes[0] as f64,
    }
}

fn main() {
    let words: Vec<String> = env::args().collect();
    let [_, folder, name, mine] = &words[..] else { fail(1, "usage: compare RAW NAME MINE.bin".into()) };
    let list = String::from_utf8_lossy(&read(&format!("{folder}/list.txt"))).into_owned();
    let line = list.lines().find(|line| line.split(' ').next() == Some(name));
    let words: Vec<&str> = line.unwrap_or_else(|| fail(1, format!("no tensor {name}"))).split(' ').collect();
    let (dtype, golden) = (words[1], read(&format!("{folder}/{}", words[2])));
    let theirs = read(mine);
    if theirs.len() != golden.len() {
        fail(2, format!("{mine}: {} bytes, want {}", theirs.len(), golden.len()));
    }
    let size = size_of(dtype);
    let (mut differ, mut worst, mut gap, mut pair) = (0, 0, 0.0, (0.0, 0.0));
    for (n, (x, y)) in theirs.chunks(size).zip(golden.chunks(size)).enumerate() {
        let (x, y) = (number(dtype, x), number(dtype, y));
        let d = if x == y { 0.0 } else if (x - y).is_finite() { (x - y).abs() } else { f64::INFINITY };
        differ += (d > 0.0) as usize;
        if d > gap {
            (worst, gap, pair) = (n, d, (x, y));
        }
    }
    let total = golden.len() / size;
    println!("{name}: {differ} of {total} differ; worst at {worst}: yours {}, golden {}", pair.0, pair.1);
    process::exit(if differ > 0 { 3 } else { 0 });
}
