// Opens pages in Chromium at two widths, light and dark: what the tests of their text cannot see.
//
//     npm install puppeteer-core axe-core     (in a folder of your own; run the next line there)
//     CHROMIUM=/usr/bin/chromium node REPOSITORY/tests/report/browser_check.mjs OUT PAGE.html ...
//
// Writes a picture of each whole page into OUT. Exits with 1 where a page is wider than the screen,
// shows text below 11 pixels, asks for anything from elsewhere, has a box that scrolls and that
// keyboards do not reach or that has no name, or where axe finds something serious or critical.
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// Packages of the folder in which the command runs.
const require = createRequire(path.join(process.cwd(), "x.js"));
const puppeteer = require("puppeteer-core");
const axe = fs.readFileSync(require.resolve("axe-core"), "utf8");
const LEAST_PIXELS = 10.99;
const SCREENS = [
  { width: 1200, height: 900 },
  { width: 390, height: 844, isMobile: true, hasTouch: true },
];

function measure() {
  const { scrollWidth, clientWidth } = document.documentElement;
  let least = Infinity;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode()); ) {
    const element = node.parentElement;
    const isHidden = element.closest("title, desc") || !element.checkVisibility();
    if (isHidden || !node.data.trim()) continue;
    const scale = element.closest("svg") ? element.getScreenCTM() : { a: 1, b: 0 };
    const size = parseFloat(getComputedStyle(element).fontSize) * Math.hypot(scale.a, scale.b);
    least = Math.min(least, size);
  }
  const unreached = [...document.querySelectorAll("body *")].filter((element) => {
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const isNamed = element.tabIndex >= 0 && element.getAttribute("aria-label");
    return scrolls && element.scrollWidth > element.clientWidth + 1 && !isNamed;
  });
  return { wider: scrollWidth - clientWidth, least, unreached: unreached.length };
}

async function check(browser, file, screen, scheme, out) {
  const page = await browser.newPage();
  const asked = [];
  page.on("request", (request) => {
    if (!/^(data|file):/.test(request.url())) asked.push(request.url());
  });
  await page.setViewport(screen);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.goto("file://" + path.resolve(file), { waitUntil: "load" });
  await page.$$eval("details", (found) => found.forEach((element) => (element.open = true)));
  const { wider, least, unreached } = await page.evaluate(measure);
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run());
  const counts = {};
  for (const { impact, nodes } of violations) {
    counts[impact] = (counts[impact] ?? 0) + nodes.length;
  }
  const name = `${path.basename(file, ".html")}_${screen.width}_${scheme}`;
  await page.screenshot({ path: path.join(out, `${name}.png`), fullPage: true });
  await page.close();
  const found = { wider, least: +least.toFixed(2), unreached, asked: asked.length, axe: counts };
  console.log(name, JSON.stringify(found));
  for (const { impact, id, nodes } of violations) {
    console.log(" ", impact, id, nodes[0].target.join(" "));
  }
  const isWrong = wider > 0 || least < LEAST_PIXELS || unreached || asked.length;
  return !(isWrong || counts.serious || counts.critical);
}

const [out, ...files] = process.argv.slice(2);
fs.mkdirSync(out, { recursive: true });
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
let isGood = true;
for (const file of files) {
  for (const screen of SCREENS) {
    for (const scheme of ["light", "dark"]) {
      isGood = (await check(browser, file, screen, scheme, out)) && isGood;
    }
  }
}
await browser.close();
process.exit(isGood ? 0 : 1);
