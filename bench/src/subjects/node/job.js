// The guest's jobs (see the crate guest-kernel) on stdin and stdout.
"use strict";

const fs = require("node:fs");

const words = process.argv.slice(2);
const value = (key, otherwise) => {
  const word = words.find((word) => word.startsWith(`${key}=`));
  return word === undefined ? otherwise : word.slice(key.length + 1);
};
const say = (line) => fs.writeSync(1, `${line}\n`);

// A chain of shifts (xorshift, 32 bits), each of which needs the one before.
const work = (steps) => {
  let state = 1;
  for (let step = 0; step < steps; step++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
  }
  return state;
};

const echo = () => {
  const steps = Number(value("n", "0"));
  say("READY");
  const lines = require("node:readline").createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    if (line === "exit" || work(steps) === 0) process.exit(0);
    say(`ECHO ${line}`);
  });
};

// As much at once as the guest reads of its disk.
const read = () => {
  say("READY");
  const buffer = Buffer.alloc(128 << 10);
  const file = fs.openSync(value("data", "/data"));
  let bytes = 0;
  for (let count; (count = fs.readSync(file, buffer)) > 0; ) bytes += count;
  say(`bytes=${bytes}`);
};

const jobs = {
  ready: () => say("READY"),
  idle: () => {
    say("READY");
    setInterval(() => {}, 1 << 30);
  },
  echo,
  read,
};

const job = jobs[value("mode", "ready")];
if (job === undefined) {
  say(`error=unknown-mode detail=${value("mode")}`);
  process.exit(2);
}
job();
