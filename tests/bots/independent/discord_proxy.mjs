// Runs @discordjs/proxy from the folder in argv[2] in front of the API in argv[3]; prints its port.
import { createRequire } from 'node:module'
import { createServer } from 'node:http'

const require = createRequire(process.argv[2] + '/package.json')
const { proxyRequests } = require('@discordjs/proxy')
const { REST } = require('@discordjs/rest')
const server = createServer(proxyRequests(new REST({ api: process.argv[3], version: '10', rejectOnRateLimit: () => true, retries: 0 })))
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })))
