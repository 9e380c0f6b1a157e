FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY sandbox ./sandbox
RUN npm run build && npm prune --omit=dev --ignore-scripts \
  && find dist-sandbox node_modules -type f -regex '.*\.\(map\|md\|[cm]?ts\)' ! -iname 'licen[cs]e*' -delete

FROM node:24-slim AS runtime
# The running service needs only node: no package manager and no setuid programs.
RUN rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack \
      /usr/local/bin/yarn /usr/local/bin/yarnpkg /opt/yarn-* \
  && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
ENV NODE_ENV=production
WORKDIR /app
COPY package.json ./
COPY --from=build /app/node_modules ./node_modules
USER 1000:1000

FROM runtime AS sandbox
COPY --from=build /app/dist-sandbox ./dist-sandbox
# The ports are published on the machine that runs the container.
ENV SANDBOX_HOST=0.0.0.0 SANDBOX_URL_HOST=127.0.0.1
EXPOSE 3000 4010 4011 4012
CMD ["node", "dist-sandbox/server.js"]

FROM runtime AS production
# A bundle loads twice as fast as hundreds of files. The packages stay for the pages of DOCS=true, for their licenses and
# for image scanners.
COPY --from=build /app/bundle ./dist
ENV HOST=:: MANAGEMENT_HOST=::
# Do not publish the management port, 9000. It is only for the orchestrator and the monitoring.
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["node", "dist/commands/healthcheck.js"]
# With V8's default for a container with 256 MB, a request costs two to three times the CPU.
CMD ["node", "--max-semi-space-size=16", "dist/server.js"]
