// Runs discord-digital-twin from the folder in argv[2]; obeys one JSON call [method, argument] a line, answers one a line.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const require = createRequire(process.argv[2] + '/package.json')
const { DigitalDiscord } = await import(
  pathToFileURL(require.resolve('discord-digital-twin/package.json')).href.replace('package.json', 'dist/index.js')
)
const options = JSON.parse(process.argv[3])
const twin = new DigitalDiscord(options)
await twin.start()
const say = (value) => console.log(JSON.stringify(value ?? null))
say({ port: twin.port })
for await (const line of createInterface({ input: process.stdin })) {
  const [method, argument] = JSON.parse(line)
  say(await (method === 'getMessages' ? twin.channel(argument).getMessages() : twin[method](argument)))
}
process.exit(0)
